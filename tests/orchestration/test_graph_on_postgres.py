"""The whole graph with its history and its registry in a real PostgreSQL: both are there, and its
data are those of an ordinary run."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ml.pipeline.table import STAGES
from ml.quality.rules import RULES
from ml.settings.profile import ROOT
from ml.store.manifest import read_manifest
from tests.builders import postgres
from tests.builders.dagster_cli import dagster, run_config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(postgres.BINARIES is None, reason=postgres.MISSING),
]
# The segmenters' config.json holds the folder of the backbone that they began with, so from
# `segmenter` on digests differ between checkouts.
COMPARABLE = [stage.name for stage in STAGES][: [s.name for s in STAGES].index("segmenter")]


def digests(root: Path) -> dict[str, str]:
    folder = root / "data" / "ci"
    return {name: read_manifest(folder / name).digest for name in COMPARABLE}


def ordinary(root: Path) -> dict[str, str]:
    """The digests that `python -m ml` gives; what `make ci` has left is used where it is valid."""
    if (ROOT / "data" / "ci").exists():
        shutil.copytree(ROOT / "data" / "ci", root / "data" / "ci")
    for name in COMPARABLE:
        command = [sys.executable, "-m", "ml", name, "--profile", "ci", "--root", str(root)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return digests(root)


def test_the_whole_graph_is_there_and_its_data_are_those_of_any_run(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    home, root = tmp_path / "home", tmp_path / "root"
    home.mkdir()
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)
    with postgres.server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        config = run_config(
            tmp_path,
            profile="ci",
            root=str(root),
            tracking_uri=server.tracking_uri,
            artifacts=str(tmp_path / "artifacts"),
        )
        done = dagster(home, "job", "execute", "-j", "pipeline", "-c", config)
        assert done.returncode == 0, done.stderr[-5000:]
        history(server)
        registry(server)
        for database in postgres.DATABASES:
            text = server.dump(database)
            assert not any(secret in text for secret in (postgres.PASSWORD, "p%40ss")), database
    assert not [*home.rglob("*.db"), *root.rglob("*.db")], "nothing in SQLite"
    assert digests(root) == ordinary(tmp_path / "ordinary")


def history(server: postgres.Server) -> None:
    """One run that succeeded, with every asset and every check."""
    assert server.query("select pipeline_name, status from runs", "dagster") == [
        ("pipeline", "SUCCESS")
    ]
    made = server.query(
        "select asset_key from event_logs where dagster_event_type = 'ASSET_MATERIALIZATION'",
        "dagster",
    )
    stages = {stage.name for stage in STAGES}
    assert {key for (key,) in made} == {f'["{name}"]' for name in stages | {"sealed_data"}}
    assert len(made) == len(set(made))
    judged = server.query(  # what is only planned has no partition
        "select asset_key, check_name, execution_status from asset_check_executions "
        "where partition = 'ci'",
        "dagster",
    )
    rules = [(stage, rule.name) for stage, rules in RULES.items() for rule in rules]
    assert sorted(judged) == sorted((f'["{s}"]', rule, "SUCCEEDED") for s, rule in rules)


def registry(server: postgres.Server) -> None:
    """Both models, one version each, which is challenger and champion."""
    models = "grounding-ci", "segmenter-ci"
    versions = server.query("select name, version, status from model_versions", "mlflow")
    assert sorted(versions) == [(name, 1, "READY") for name in models]
    titles = server.query("select name, alias, version from registered_model_aliases", "mlflow")
    assert sorted(titles) == [
        (name, alias, 1) for name in models for alias in ("challenger", "champion")
    ]
    runs = server.query("select distinct status from runs", "mlflow")
    assert runs == [("FINISHED",)]
