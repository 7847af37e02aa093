"""Dagster's history and MLflow's registry in a real PostgreSQL, its password an awkward one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage

from ml.settings.profile import ROOT
from orchestration.mlflow.experiment import open_experiment
from tests.builders import postgres

pytestmark = pytest.mark.skipif(postgres.BINARIES is None, reason=postgres.MISSING)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as made, pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made


@pytest.fixture
def mlflow_as_it_was() -> Iterator[None]:
    import mlflow

    yield
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


@pytest.fixture
def home(tmp_path) -> Path:
    """A DAGSTER_HOME with the settings of the compose file."""
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(ROOT / "deploy" / "dagster.yaml", folder)
    return folder


def told(server: postgres.Server, database: str) -> bool:
    """Whether a database holds the password, as it is or as a URL writes it."""
    return any(text in server.dump(database) for text in (postgres.PASSWORD, "p%40ss"))


def test_the_history_is_there(server, home):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        stores = instance.run_storage, instance.event_log_storage, instance.schedule_storage
        kinds = PostgresRunStorage, PostgresEventLogStorage, PostgresScheduleStorage
        assert all(isinstance(store, kind) for store, kind in zip(stores, kinds, strict=True))
        instance.add_dynamic_partitions("profile", ["ci"])

        @dg.asset
        def thing() -> dg.MaterializeResult:
            return dg.MaterializeResult(data_version=dg.DataVersion("7"))

        done = dg.materialize([thing], instance=instance)
    with dg.DagsterInstance.from_config(str(home)) as instance:  # opened anew
        assert instance.get_run_by_id(done.run_id).status is dg.DagsterRunStatus.SUCCESS
        event = instance.get_latest_materialization_event(thing.key)
        assert event.asset_materialization.tags["dagster/data_version"] == "7"
        assert instance.get_dynamic_partitions("profile") == ["ci"]
    assert not list(home.rglob("*.db")), "nothing in SQLite"
    assert not told(server, "dagster")


def test_the_registry_is_there(server, tmp_path, mlflow_as_it_was):
    import mlflow

    experiment = open_experiment(server.tracking_uri, "words", str(tmp_path / "artifacts"))
    run = mlflow.MlflowClient().create_run(experiment)
    again = open_experiment(server.tracking_uri, "words", str(tmp_path / "artifacts"))
    assert again == experiment
    assert server.query("select run_uuid from runs", "mlflow") == [(run.info.run_id,)]
    assert not told(server, "mlflow")


@pytest.mark.slow  # MLflow tries for 100 s
def test_a_wrong_password_is_refused_and_not_repeated(server, monkeypatch, mlflow_as_it_was):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "n0t/it@all")
    with pytest.raises(ValueError, match="can't be opened: .*authentication failed") as refusal:
        open_experiment(server.tracking_uri, "words", None)
    assert "n0t" not in str(refusal.value) and refusal.value.__cause__ is None
