"""The whole graph on a real S3 server gives the digests of a local disk, and keeps no set here."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ml.pipeline.table import STAGES
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT
from ml.store import objects
from ml.store.manifest import read_manifest
from tests.builders import object_store
from tests.builders.object_store import BUCKET, environment

MOST_HERE = 40_000_000
"""Bytes in the temporary folder at any time: a checkpoint of the grounding module is 25 MB."""


def run_all(root: str, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "ml", "all", "--profile", "ci", "--root", root]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def size_of(folder: Path) -> int:
    total = 0
    for above, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(above, name))
            except FileNotFoundError:
                continue  # it was there for a moment
    return total


@pytest.mark.slow
def test_the_ci_graph_on_s3_is_the_local_one(s3, tmp_path, monkeypatch):
    object_store.use_keys(monkeypatch)
    scratch, sizes, over = tmp_path / "tmp", [], threading.Event()
    scratch.mkdir()
    watch = threading.Thread(
        target=lambda: [sizes.append(size_of(scratch)) for _ in iter(lambda: over.wait(0.1), True)]
    )
    watch.start()
    try:
        run_all(f"s3://{BUCKET}/{tmp_path.name}", environment(s3) | {"TMPDIR": str(scratch)})
    finally:
        over.set()
        watch.join()
    run_all(str(tmp_path), dict(os.environ))
    there = Workspace(object_store.place(s3, tmp_path.name), "ci")
    here = Workspace(tmp_path, "ci")
    made = {stage.name for stage in STAGES} - {"report"}  # which shows how long the stages took
    digests = [
        {name: read_manifest(each.folder(name)).digest for name in made} for each in (there, here)
    ]
    assert digests[0] == digests[1]
    assert max(sizes) < MOST_HERE and size_of(scratch) == 0
    assert len(objects.below(there.folder("report"))) == len(objects.below(here.folder("report")))
