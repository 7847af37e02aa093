"""A registry's store that is not there yet: made whole, whoever is killed meanwhile."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from ml.settings.profile import ROOT
from orchestration.mlflow import experiment
from orchestration.mlflow.experiment import open_experiment
from tests.builders import network_locks

OPEN = """
import sys
from orchestration.mlflow.experiment import open_experiment
open_experiment(f"sqlite:///{sys.argv[1]}", "all", None)
"""


def revisions(folder: Path) -> set[str]:
    """How far the stores below a folder are, by MLflow's own marks; they change fifty times."""
    found = set()
    for file in folder.rglob("*.db"):
        try:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as store:
                found |= {mark for (mark,) in store.execute("select * from alembic_version")}
        except sqlite3.Error:
            continue  # nothing in it yet, or being written
    return found


@pytest.mark.parametrize("kind", network_locks.KINDS)
def test_a_store_is_made_on_a_network_file_system(tmp_path, monkeypatch, kind):
    network_locks.use(monkeypatch, kind)

    def tables(address, _):  # MLflow's own take 10 s
        Path(address.removeprefix("sqlite:///")).write_text("tables")
        return SimpleNamespace(engine=SimpleNamespace(dispose=lambda: None))

    monkeypatch.setattr("mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore", tables)
    experiment._make_store(tmp_path / "mlflow.db")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("mlflow.db", "tables")
    ]


@pytest.mark.slow
def test_a_kill_while_the_store_is_made_leaves_one_that_can_be_opened(tmp_path):
    """Of fifty revisions twelve were there: MLflow can't open what such a kill leaves."""
    file, scratch = tmp_path / "mlflow.db", tmp_path / "scratch"
    scratch.mkdir()
    making = subprocess.Popen(
        [sys.executable, "-c", OPEN, str(file)],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(scratch)},
        stderr=subprocess.DEVNULL,
    )
    seen: set[str] = set()
    while len(seen) < 12:
        assert making.poll() is None, "it was too fast to be killed half-way"
        seen |= revisions(tmp_path)
        time.sleep(0.005)
    making.send_signal(signal.SIGKILL)
    making.wait()
    assert not file.exists(), "a store takes its place when it is whole"
    number = open_experiment(f"sqlite:///{file}", "all", None)
    assert open_experiment(f"sqlite:///{file}", "all", None) == number
    assert {path.name for path in tmp_path.iterdir()} == {"mlflow.db", "scratch"}
