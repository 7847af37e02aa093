"""Clocks that jump and memory that ends while a stage is made. docs/faults.md has the table.

Two runs at once: tests/pipeline/test_contract_inputs.py; kills:
tests/store/test_contract_workspace.py.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ml.errors import WorkspaceBusy
from ml.settings.profile import ROOT
from ml.store.manifest import read_manifest
from ml.store.successor import Successor
from tests.builders.small_stages import start, until

FAKE = [*Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]


@pytest.mark.skipif(not FAKE, reason="needs the Debian package libfaketime")
def test_a_clock_that_jumps_changes_nothing_that_counts(small, tmp_path, monkeypatch):
    """Begun in 2001, its clock put to 2060 and back to 1990 while it works, killed; a run of today
    waits for it while it lives, and goes on with its shards when it is dead."""
    run, workspace, runs = small
    clock = tmp_path / "clock"
    clock.write_text("@2001-01-01 00:00:00")
    with monkeypatch.context() as faked:
        for name, value in (
            ("LD_PRELOAD", str(FAKE[0])),
            ("FAKETIME_TIMESTAMP_FILE", str(clock)),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),  # a step of the clock leaves that one alone
        ):
            faked.setenv(name, value)
        process = start(tmp_path, 0, 3)
    half = Successor(workspace.data, "one").new
    try:
        until(lambda: len(list(half.glob(".shard-*.json"))) == 1)
        clock.write_text("@2060-01-01 00:00:00")
        with pytest.raises(WorkspaceBusy, match=f"process {process.pid} .* since 2001-01-01"):
            run("one", 1)
        clock.write_text("@1990-01-01 00:00:00")
        until(lambda: len(list(half.glob(".shard-*.json"))) == 2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    report = run("one")
    assert runs == [[4, 5]] and report.seconds >= 0
    assert read_manifest(workspace.folder("one")).digest == report.digest
    for path in workspace.data.rglob("*"):
        os.utime(path, (0, 0))  # of 1970: no age of a file decides anything
    assert run("one").cached and run("two").facts == {"total": 15}


HUNGRY = """
import resource, sys
import numpy, torch
from tests.builders import small_stages
from ml.errors import exit_path
from ml.pipeline.runner import run_stage
from ml.settings.profile import load_params
import ml.pipeline.runner as stages
from pathlib import Path

made = []

def eat(group):
    made.append(group)
    if len(made) == 2:
        {meal}
    return rows_of(group)

rows_of, small_stages.rows_of = small_stages.rows_of, eat
sys.modules.update(small_stages.modules_of())
stages.STAGE = small_stages.TABLE
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.exit(exit_path(lambda: run_stage("one", load_params(), Path(sys.argv[1])) and 0)())
"""


@pytest.mark.parametrize(
    "meal",
    ["numpy.ones(1 << 28)", "bytearray(1 << 31)", "torch.ones(1 << 28)"],
    ids=["numpy", "python", "torch"],
)
def test_memory_that_ends_in_a_shard_is_4_and_the_shards_before_it_stay(small, tmp_path, meal):
    run, workspace, runs = small
    done = subprocess.run(
        [sys.executable, "-c", HUNGRY.format(meal=meal), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    last = done.stderr.splitlines()[-1].rpartition("\r")[2]
    assert done.returncode == 4 and "Traceback" not in done.stderr, done.stderr
    assert last.startswith("error: ") and "memory" in last.lower() or "allocate" in last, last
    assert not workspace.folder("one").exists()
    assert run("one").facts == {"rows": 6} and runs == [[2, 3], [4, 5]]
