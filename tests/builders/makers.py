"""What the worker processes of test_processes.py make their shards with; cheap to import."""

import os
import signal
import time

import pandas as pd


def rows_of(group) -> pd.DataFrame:
    return pd.DataFrame({"key": [f"{i:03d}" for i in group], "x": [float(i) ** 0.5 for i in group]})


def mortal(group) -> pd.DataFrame:
    if 5 in group:
        os.kill(os.getpid(), signal.SIGKILL)
    return rows_of(group)


def sleepy(group) -> pd.DataFrame:
    """Says on stdout that it has begun, and takes a minute."""
    print("begun", flush=True)
    time.sleep(60)
    return rows_of(group)
