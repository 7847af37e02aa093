"""A real MLflow server with its own artifact store: what is logged there lies there."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from ml.pipeline.workspace import Workspace
from orchestration.mlflow.registry import Registry
from orchestration.resources import Project
from tests.builders import handmade
from tests.orchestration.test_registry import PREDICT, clean_process, scored  # noqa: F401  a fixture


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Its address and the folder in which it keeps artifacts."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            f"sqlite:///{home}/server.db",
            "--serve-artifacts",
            "--artifacts-destination",
            str(home / "store"),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ],
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}", home / "store"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the session that was started above, by its id
        process.wait()


def wait_for(url: str, process: subprocess.Popen, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the server ended"
        try:
            urllib.request.urlopen(url, timeout=5).read()
            return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"{url} did not answer in {seconds} s")


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
    assert registry.sync_champions() is True, "a fresh clone gets the champion's scores from there"
    assert (record / "scores.parquet").is_file()
    model = Path(
        registry.mlflow.artifacts.download_artifacts(
            "models:/segmenter-ci@champion", dst_path=str(tmp_path)
        )
    )
    weights = next(model.glob("artifacts/**/*.safetensors"))  # it loads: test_registry.py
    own = scored.folder("segmenter") / "model" / weights.name
    assert weights.read_bytes() == own.read_bytes()


def test_artifacts_of_another_store_are_passed_through(server, tmp_path):
    uri, _ = server
    workspace = Workspace(tmp_path, "bucket")
    params = handmade.params_of(workspace)
    registry = Registry(uri, "s3://bucket/x", params, workspace)
    assert registry.client.get_experiment(registry.experiment).artifact_location == "s3://bucket/x"
    with pytest.raises(ValueError, match="keeps its artifacts at 's3://bucket/x'"):
        Registry(uri, "s3://elsewhere", params, workspace)
    assert Registry(uri, None, params, workspace).experiment == registry.experiment
