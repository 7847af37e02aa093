"""The databases of MLflow and Dagster locked or gone while something is asked of them.

docs/faults.md has the table.
"""

import sqlite3
import subprocess
import sys
from contextlib import contextmanager

import dagster as dg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from ml.errors import RESOURCES, exit_code, one_line
from orchestration.mlflow import absence
from orchestration.mlflow.absence import RegistryAway, when_there
from orchestration.mlflow.experiment import open_experiment
from tests.builders.small_disk import leave, remount

HOLD = """
import sqlite3, sys, time
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@contextmanager
def held(file, seconds: float):
    """An exclusive transaction of another process, which ends by itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file), str(seconds)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def database(tmp_path):
    file = tmp_path / "some.db"
    with sqlite3.connect(file) as made:
        made.execute("CREATE TABLE x (n INTEGER)")
    made.close()
    return file


def write(file) -> str:
    """As MLflow does, with a shorter wait of sqlite's own."""
    with create_engine(f"sqlite:///{file}", connect_args={"timeout": 0.1}).begin() as connection:
        connection.execute(text("INSERT INTO x VALUES (1)"))
    return "written"


def test_a_registry_locked_for_a_while_is_waited_for(database, monkeypatch, caplog):
    monkeypatch.setattr(absence, "PAUSE", 0.1)
    with held(database, 2):
        with pytest.raises(OperationalError, match="database is locked"):
            write(database)
        assert when_there(f"sqlite:///{database}", lambda: write(database)) == "written"
    said = [record.getMessage() for record in caplog.records if "waits: " in record.getMessage()]
    assert len(said) <= 1


def test_a_registry_locked_for_long_is_one_line_with_its_file(database, monkeypatch):
    monkeypatch.setattr(absence, "PAUSE", 0.1)
    monkeypatch.setattr(absence, "PATIENCE", 0.5)
    with held(database, 60), pytest.raises(RegistryAway) as raised:
        when_there(f"sqlite:///{database}", lambda: write(database))
    said = one_line(raised.value)
    assert exit_code(raised.value) == RESOURCES and str(database) in said
    assert "database is locked" in said and "start the same command again" in said
    assert write(database) == "written"


def test_a_server_that_comes_back_is_asked_again(monkeypatch):
    """What the client raises after its own tries; other errors are not tried again."""
    from mlflow.exceptions import MlflowException

    monkeypatch.setattr(absence, "PAUSE", 0)
    gone = MlflowException(
        "API request to http://127.0.0.1:1/api failed with exception HTTPConnectionPool(host="
        "'127.0.0.1', port=1): Max retries exceeded (Connection refused)"
    )
    answers = iter([gone, gone, "there"])

    def ask():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert when_there("http://127.0.0.1:1", ask) == "there"
    answers = iter([MlflowException("no such run")])
    with pytest.raises(MlflowException, match="no such run"):
        when_there("http://127.0.0.1:1", ask)


def test_a_server_that_is_not_there_is_4_and_not_a_setting_to_look_at(monkeypatch):
    for name, value in (("MAX_RETRIES", "0"), ("TIMEOUT", "2")):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)
    with pytest.raises(RegistryAway, match="http://127.0.0.1:9 .*does not answer") as raised:
        open_experiment("http://127.0.0.1:9", "x", None)
    assert exit_code(raised.value) == RESOURCES


def test_a_locked_history_of_dagster_stops_before_the_first_stage_and_loses_no_run(tmp_path):
    """The error is Dagster's own, which waits five seconds."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.create_run_for_job(JOB)
        (file,) = tmp_path.rglob("runs.db")
        with held(file, 60), pytest.raises(OperationalError, match="database is locked"):
            instance.create_run_for_job(JOB)
        assert len(instance.get_runs()) == 1
        assert JOB.execute_in_process(instance=instance).success
        assert len(instance.get_runs()) == 2


def test_a_full_disk_under_dagsters_history_and_mlflows_artifacts_is_4(small_disk):
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    remount(small_disk, "size=8m")
    file = small_disk.parent / "model.safetensors"
    file.write_bytes(b"x" * 100_000)
    store = LocalArtifactRepository(str(small_disk / "artifacts"))
    with dg.DagsterInstance.local_temp(str(small_disk)) as instance:
        instance.create_run_for_job(JOB)
        leave(small_disk, 0)
        with pytest.raises(OSError) as raised:
            store.log_artifact(str(file))
        assert exit_code(raised.value) == RESOURCES and "free some disk" in one_line(raised.value)
        with pytest.raises(Exception, match=r"(?i)disk is full|disk I/O error") as raised:
            for _ in range(50):  # the pages that sqlite has already hold some
                instance.create_run_for_job(JOB)
        assert exit_code(raised.value) == RESOURCES
        remount(small_disk, "size=16m")
        store.log_artifact(str(file))
        assert JOB.execute_in_process(instance=instance).success


@dg.op
def nothing() -> None:
    """The smallest job."""


@dg.job
def smallest() -> None:
    nothing()


JOB = smallest
