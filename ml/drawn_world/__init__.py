"""The drawn world: scenes of twenty classes with exact masks and captions."""
