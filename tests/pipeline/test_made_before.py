"""Folders made before the modules moved are found done after it: recipes name stages, not modules.

`made_before/before/` holds the manifests of a `data/ci` that was finished when the stages were
modules of `ml/stages/`, `before.yaml` the profile of that time. The shards are too large to keep,
except those of `prompts`, which is there whole.
"""

import functools
import json
import shutil
from pathlib import Path

import pytest

from ml.pipeline import recipe
from ml.pipeline.recipe import recipe_of
from ml.pipeline.runner import run_stage
from ml.pipeline.table import STAGE, STAGES
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from ml.store.manifest import read_manifest

MADE_BEFORE = Path(__file__).parent / "made_before"
PROFILE = str(Path(__file__).parent / "before.yaml")
CHANGED_SINCE: set[str] = {"report", "segmenter", "real_bound"}
"""Stages whose version or models were changed on purpose since then: the backbone's weights are in
float16 now."""


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    shutil.copytree(MADE_BEFORE, tmp_path / "data")
    return Workspace(tmp_path, "before")


@pytest.mark.parametrize("name", [name for name in STAGE if name not in CHANGED_SINCE])
def test_the_recipe_of_a_stage_is_the_one_its_old_manifest_names(name, workspace, monkeypatch):
    """Stage, version, settings, and the digests of its inputs and of the committed models."""
    without_files = functools.partial(read_manifest, verify=False)  # the shards are not here
    monkeypatch.setattr(recipe, "read_manifest", without_files)
    today = recipe_of(STAGE[name], load_params(PROFILE), workspace)
    before = json.loads((workspace.folder(name) / "manifest.json").read_text())
    assert json.loads(json.dumps(today)) == {key: before[key] for key in today}


def test_a_finished_folder_is_found_done(workspace):
    before = read_manifest(MADE_BEFORE / "before" / "prompts").digest
    report = run_stage("prompts", load_params(PROFILE), workspace.root)
    assert report.cached and report.digest == before


def test_no_manifest_names_code(workspace):
    for stage in STAGES:
        text = (workspace.folder(stage.name) / "manifest.json").read_text()
        assert "ml." not in text and "ml/" not in text and ".py" not in text, stage.name
