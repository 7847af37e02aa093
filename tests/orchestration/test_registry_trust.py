"""A part of the graph under Dagster and MLflow: no pickle is read or written, nothing listens, and
no secret of the environment is in anything that was written."""

import json
import os
import pickle
import pickletools
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ml.settings.profile import ROOT
from tests.orchestration.test_registry import scored  # noqa: F401  a fixture

SECRETS = {
    name: f"canary{number}k7Qz"
    for number, name in enumerate(
        (
            "HF_TOKEN",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AZURE_STORAGE_CONNECTION_STRING",
            "MLFLOW_TRACKING_PASSWORD",
            "DAGSTER_PG_PASSWORD",
            "PGPASSWORD",
            "DATABASE_URL",
        )
    )
}


@pytest.fixture(scope="module")
def watched(scored, tmp_path_factory):  # noqa: F811
    """(what the process reports, its output, the folder of all that it wrote)."""
    place = tmp_path_factory.mktemp("watched")
    shutil.copytree(scored.root, place / "scored")
    for name in ("fresh", "dagster"):
        (place / name).mkdir()
    shutil.copyfile(ROOT / ".dagster" / "dagster.yaml", place / "dagster" / "dagster.yaml")
    more = {"DAGSTER_HOME": str(place / "dagster"), "OMP_NUM_THREADS": "1"}
    roots = [str(place / name) for name in ("fresh", "scored", "report.json")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.builders.watched", *roots],
        cwd=ROOT,
        env=os.environ | SECRETS | more,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((place / "report.json").read_text()), done.stdout + done.stderr, place


def is_pickle(data: bytes) -> bool:
    """Whether bytes are a whole pickle that names something."""
    try:
        names = [op.name for op, _, _ in pickletools.genops(data)]
        return bool({"GLOBAL", "STACK_GLOBAL"} & set(names))
    except Exception:  # of any kind, for what is none
        return False


def test_no_pickle_is_loaded(watched):
    report, _, _ = watched
    assert report["predictions"] == [[1, 64, 64], [1]]
    assert report["pickled"] == []


def test_no_pickle_is_written_and_dagsters_io_manager_holds_nothing(watched):
    _, _, place = watched
    assert is_pickle(pickle.dumps(np.ones(1))) and not is_pickle(b"artifacts:\n  a: b\n")
    written = [path for path in place.rglob("*") if path.is_file()]
    assert [path for path in written if path.name == "mlflow.db"], "the registry is there"
    assert not [p for p in written if p.suffix in (".pkl", ".pickle", ".joblib", ".pt", ".bin")]
    assert not [path for path in written if is_pickle(path.read_bytes())]
    kept = place / "dagster" / "storage"  # where its default manager pickles what assets return
    asset_folders = {"prompts", "promotion"}
    assert not [p for p in kept.rglob("*") if p.is_file() and p.parent.name in asset_folders]
    assert not [p for p in kept.iterdir() if p.name in asset_folders]


def test_nothing_listens(watched):
    """urllib3 binds a port of IPv6's loopback for a moment, to see whether there is IPv6."""
    report, _, _ = watched
    assert set(report["bound"]) <= {"('::1', 0)"}


def test_no_secret_is_written_or_said(watched):
    _, said, place = watched
    found = [name for name, secret in SECRETS.items() if secret in said]
    for path in place.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            found += [
                f"{name} in {path.relative_to(place)}"
                for name, secret in SECRETS.items()
                if secret.encode() in data
            ]
    assert not found
