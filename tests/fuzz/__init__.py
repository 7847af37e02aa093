"""Inputs of a hostile reviewer's kind, by the hundred, each known to be sound or nonsense.

    python -m tests.fuzz --seed 1 --count 500

A family generates inputs from a seed, with its own knowledge of what they are worth; the harness
runs the real commands on them and counts what came out. Not here: what each single contract says
(`tests/test_contract_*.py`).
"""

import os

# Nothing here is to be downloaded, and libraries read these when they are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
