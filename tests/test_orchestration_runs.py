"""Runs as they are started and killed: process groups end by SIGKILL, and the same command again
goes on by itself, with no daemon. A profile is a partition of every asset and check."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml

from ml.params import ROOT, load_params
from ml.stages import Workspace, run_stage

DAGSTER_YAML = ROOT / ".dagster" / "dagster.yaml"
MODULE = ("-m", "orchestration.definitions")


@pytest.fixture
def home(tmp_path) -> Path:
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").symlink_to(DAGSTER_YAML)
    return folder


def config(folder: Path, profile: str, **more) -> str:
    path = folder / f"{Path(profile).stem}.run.yaml"
    path.write_text(yaml.safe_dump({"resources": {"project": {"config": {
        "profile": profile, "root": str(folder)}}}} | more))
    return str(path)


def start(home: Path, *command: str) -> subprocess.Popen:
    """A process group of its own, as a terminal gives one; what it says goes to files."""
    said = (home.parent / f"said-{time.monotonic_ns()}").open("w+")
    process = subprocess.Popen([sys.executable, "-m", "dagster", *command], cwd=ROOT,
                               env=os.environ | {"DAGSTER_HOME": str(home)}, stdout=said,
                               stderr=subprocess.STDOUT, start_new_session=True)
    process.said = Path(said.name)
    return process


def kill_when(process: subprocess.Popen, seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    try:
        while not seen():
            assert process.poll() is None, process.said.read_text()[-3000:]
            assert time.monotonic() < end, process.said.read_text()[-3000:]
            time.sleep(0.02)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def finish(process: subprocess.Popen, seconds: float = 180) -> str:
    """What a process that ends well said; it is killed when it does not end."""
    try:
        rc = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    said = process.said.read_text()
    assert rc == 0, said[-3000:]
    return said


def runs(home: Path) -> list[dg.DagsterRun]:
    """Newest last."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return instance.get_runs()[::-1]


def started(home: Path, number: int) -> bool:
    if not (home / "history" / "runs.db").is_file():
        return False
    states = [run.status for run in runs(home)]
    return len(states) == number and states[-1] == dg.DagsterRunStatus.STARTED


@pytest.fixture
def small(tmp_path) -> Path:
    """The ci profile with pictures of two steps: a file of one's own, outside profiles/."""
    path = tmp_path / "small.yaml"
    ci = yaml.safe_load((ROOT / "profiles" / "ci.yaml").read_text())
    path.write_text(yaml.safe_dump(ci | {"diffusion": {"steps": 2}}))
    return path


@pytest.mark.parametrize("executor", [
    "in_process", pytest.param("multiprocess", marks=pytest.mark.slow)])
def test_the_same_command_goes_on_after_kill_at_any_moment(tmp_path, home, small, executor):
    """Killed as it starts, killed in its GPU stage, the third time let alone: a job that begins
    with a GPU stage, whose turn a dead run would keep if it were a row in a database."""
    run_stage("prompts", load_params(str(small)), tmp_path)
    folder = Workspace(tmp_path, "small").folder("images")
    command = ("asset", "materialize", *MODULE, "--select", "images", "--partition", "small", "-c",
               config(tmp_path, str(small), execution={"config": {executor: {}}}))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("profile", ["small"])
    kill_when(start(home, *command), lambda: started(home, 1))
    kill_when(start(home, *command), lambda: folder.is_dir())
    finish(start(home, *command))
    assert (folder / "manifest.json").is_file()
    assert [run.status.value for run in runs(home)] == ["FAILURE", "FAILURE", "SUCCESS"]
    assert {run.tags["dagster/partition"] for run in runs(home)} == {"small"}
    assert not list((home / "alive").glob(".*")) and len(list((home / "alive").iterdir())) == 1
