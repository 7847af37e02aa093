"""Measurements, a module each: `python -m benchmarks.<name>`."""

import ml  # noqa: F401  before any of them imports torch: it says how torch's threads wait
