"""Baselines of the grounding module: attention maps of DAAM and of OVAM."""
