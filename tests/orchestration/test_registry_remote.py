"""A real MLflow server with its own artifact store: what is logged there lies there."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from ml.pipeline.workspace import Workspace
from orchestration.mlflow.registry import Registry
from orchestration.resources import Project
from tests.builders import handmade
from tests.builders.servers import mlflow_ui
from tests.orchestration.test_registry import PREDICT, clean_process, scored  # noqa: F401  a fixture


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its address and the folder in which it keeps artifacts."""
    home = tmp_path_factory.mktemp("server")
    kept = ("--serve-artifacts", "--artifacts-destination", str(home / "store"))
    with mlflow_ui(home / "server.db", home, *kept) as address:
        yield address, home / "store"


def test_the_server_keeps_the_models(scored, server, tmp_path):  # noqa: F811
    uri, store = server
    project = Project(profile="ci", root=str(scored.root), tracking_uri=uri)
    registry = Registry(*project.registry, handmade.params_of(scored), scored)
    registry.log_challengers()
    registry.sync_champions()
    registry.apply_verdict()
    kept = {path.suffix for path in store.rglob("*") if path.is_file()}
    assert {".safetensors", ".parquet", ".md"} <= kept
    local = [path.name for path in scored.root.iterdir()]
    assert not {"mlartifacts", "mlruns", "mlflow.db"} & set(local), local
    assert not (Path.cwd() / "mlruns").exists()

    version = registry.client.get_model_version_by_alias("segmenter-ci", "champion")
    assert "file:" not in registry.client.get_run(version.run_id).info.artifact_uri
    record = scored.data / "champion" / "segmenter"
    shutil.rmtree(record)
    registry.sync_champions()
    assert (record / "scores.parquet").is_file(), "a fresh clone gets the champion's scores"
    clean_process(PREDICT, [str(tmp_path / "labels.npy")], uri, tmp_path)
    assert np.load(tmp_path / "labels.npy").shape == (2, 64, 64)


def test_artifacts_of_another_store_are_passed_through(server, tmp_path):
    uri, _ = server
    workspace = Workspace(tmp_path, "bucket")
    params = handmade.params_of(workspace)
    registry = Registry(uri, "s3://bucket/x", params, workspace)
    assert registry.client.get_experiment(registry.experiment).artifact_location == "s3://bucket/x"
    with pytest.raises(ValueError, match="keeps its artifacts at 's3://bucket/x'"):
        Registry(uri, "s3://elsewhere", params, workspace)
    assert Registry(uri, None, params, workspace).experiment == registry.experiment
