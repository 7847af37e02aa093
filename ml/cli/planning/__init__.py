"""Plans a run before anything starts: what it needs, what this machine has, what it costs."""
