"""Dagster with a root on an object store: what it takes, refuses and skips."""

import json

import dagster as dg
import pytest

from ml.pipeline.workspace import Workspace
from orchestration.assets import ASSETS
from orchestration.checks import CHECKS
from orchestration.home import home_of
from orchestration.mlflow.tracking import resolve
from orchestration.resources import Project
from orchestration.turns import gpu_turn
from orchestration.versioning import seal
from tests.builders import object_store
from tests.builders.object_store import BUCKET, objects_at


def test_an_asset_and_its_checks_on_a_bucket(s3, tmp_path, monkeypatch):
    object_store.use_keys(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    project = Project(
        profile="ci",
        root=f"s3://{BUCKET}/{tmp_path.name}",
        tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
    )
    parts = [part for part in (*ASSETS, *CHECKS) if "prompts" in str(part.node_def.name)]
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            parts, resources={"project": project}, instance=instance, partition_key="ci"
        )
    assert done.success
    kept = objects_at(s3, f"{tmp_path.name}/data/ci/")
    (verdict,) = [body for name, body in kept.items() if name.endswith("/state/quality.json")]
    assert json.loads(verdict)["passed"]
    assert "quality/index.html" in kept
    assert not any(tmp_path.rglob("prompts"))


def test_mlflow_needs_an_address_there(tmp_path):
    home = home_of("memory://bucket/x")
    with pytest.raises(ValueError, match="tracking_uri: missing, and the root"):
        resolve("", "", home)
    with pytest.raises(ValueError, match="a relative file"):
        resolve("sqlite:///mlflow.db", "", home)
    assert resolve("postgresql://host/db", "", home)[1] == "memory://bucket/x/mlartifacts"
    assert resolve("http://host:5000", "", home) == ("http://host:5000", None)
    own = f"sqlite:///{tmp_path}/mlflow.db"
    assert resolve(own, "", home) == (own, "memory://bucket/x/mlartifacts")


def test_dvc_is_skipped_and_the_gpu_is_this_machines(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    told = seal(Workspace(home_of("memory://bucket/x"), "micro"))
    assert told["sealed"] == "skipped" and "object store" in told["reason"]
    with gpu_turn(home_of("memory://bucket/x"), "a test"):
        assert [path.is_file() for path in tmp_path.rglob("*")].count(True) == 1


def test_a_login_in_the_root_is_refused_without_repeating_it():
    with pytest.raises(ValueError, match="with a login") as refused:
        _ = Project(root="s3://KEYID:SECRETPART@bucket/x").home
    assert "SECRETPART" not in str(refused.value)
