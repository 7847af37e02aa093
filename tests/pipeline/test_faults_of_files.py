"""Every file that a finished workspace holds, damaged in every way: what reads it notices, and what
wrote it makes it again. docs/faults.md has the table.

The workspace is of the whole graph, made for real (`tests.builders.tiny_graph`); its kinds of files
are found, not listed, so that a new one is damaged too.
"""

import dataclasses
import sys
import types

import pytest

from ml import errors
from ml.errors import ManifestError, NotFinite, QualityError, exit_code
from ml.pipeline.recipe import refuse_failed_inputs
from ml.pipeline.runner import run_stage
from ml.pipeline.stages import promotion
from ml.pipeline.table import STAGE, STAGES
from ml.pipeline.workspace import Workspace
from ml.store import files
from ml.store.files import read_json, write_json
from ml.store.manifest import SIDECAR, read_manifest
from ml.store.seals import sealed
from tests.builders import tiny_graph
from tests.builders.damage import DAMAGES, flipped, spoil


class MadeAgain(Exception):
    """The stage was not found finished, and its work began."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(params, workspace) of the whole graph. Not to be changed: see `copied`."""
    return tiny_graph.make(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    """(run, a copy of the workspace): `run` ends with MadeAgain where a stage would work."""
    params, whole = finished
    workspace = tiny_graph.copy(whole, tmp_path)

    def work(*_):
        raise MadeAgain

    for name in STAGE:
        module = types.ModuleType(name)
        module.run = work
        monkeypatch.setitem(sys.modules, f"ml.pipeline.stages.{name}", module)
    files.say.cache_clear()
    digests = {}  # of models, which nobody damages here; `test_faults_of_weights` does
    digest = Workspace.digest

    def remembered(self, params, place):
        key = params.section(place), place
        if key not in digests:
            digests[key] = digest(self, params, place)
        return digests[key]

    monkeypatch.setattr(Workspace, "digest", remembered)

    def run(name: str, force: bool = False):
        return run_stage(name, params, workspace.root, force=force)

    return run, workspace


def test_an_undamaged_copy_is_finished(copied):
    run, _ = copied
    assert all(run(name).cached for name in STAGE)


KNOWN = {
    *(f".state/{stage.name}/{note}.json" for stage in STAGES for note in ("made", "timing")),
    *(
        f".state/{stage.name}/quality.json"
        for stage in STAGES
        if stage.name not in ("promotion", "report")
    ),
    *(
        f"champion/{model}/{name}"
        for model in ("grounding", "segmenter")
        for name in ("record.json", "scores.parquet")
    ),
    *(f".locks/{stage.name}" for stage in STAGES),
    ".state/profile.json",
    "quality/index.html",
}
"""Outside the stages' folders; a test for each is below."""


def test_there_is_no_kind_of_file_that_is_not_damaged_here(finished):
    _, workspace = finished
    found = {name for name in tiny_graph.kinds(workspace.data) if name.split("/")[0] not in STAGE}
    assert found == KNOWN


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("stage", STAGE)
def test_a_damaged_file_of_a_stage_is_noticed_where_it_is_read_and_made_again(
    copied, capsys, stage, how
):
    run, workspace = copied
    readers = [each.name for each in STAGES if stage in each.inputs]
    for name, path in tiny_graph.kinds(workspace.folder(stage)).items():
        whole = path.read_bytes()
        spoil(path, how)
        if SIDECAR.fullmatch(path.name):  # serves the making alone
            assert all(run(each).cached for each in (stage, *readers))
        else:
            for reader in readers[:2]:
                with pytest.raises(ManifestError) as refused:
                    run(reader)
                assert str(path) in str(refused.value) and stage in str(refused.value)
                assert "make" in str(refused.value) or f"python -m ml {stage}" in str(refused.value)
            with pytest.raises(MadeAgain):
                run(stage)
            if name != "manifest.json" or how != "deleted":
                assert str(path) in capsys.readouterr().err
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        assert run(stage).cached, "the finished folder stood while its successor began"


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["segmenter", "grounding_model"])
def test_a_training_that_leaves_the_numbers_writes_no_model(finished, tmp_path, stage):
    """A learning rate of 1e30, which no profile may say, through the real stages: the finished
    model stands, and no weights, checkpoint or curve of the other one are written."""
    params, whole = finished
    workspace = tiny_graph.copy(whole, tmp_path)
    before = read_manifest(workspace.folder(stage)).digest
    wild = dataclasses.replace(
        params,
        segmenter=dataclasses.replace(params.segmenter, learning_rate=1e30),
        grounding=dataclasses.replace(
            params.grounding,
            seeded=dataclasses.replace(params.grounding.seeded, learning_rate=1e30, warm_up=0),
        ),
    )
    with pytest.raises(NotFinite, match="learning_rate") as raised:
        run_stage(stage, wild, tmp_path)
    assert exit_code(raised.value) == errors.INPUT
    assert read_manifest(workspace.folder(stage)).digest == before
    left = {path.name for path in (workspace.data / ".making" / stage).rglob("*") if path.is_file()}
    assert left <= {"pictures.arrow", "pictures.arrow.sha256.json"}, left


# --- notes, which lie beside the folders ----------------------------------------------------------


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_notes_of_ours_cost_nothing_that_is_finished(copied, how):
    run, workspace = copied
    for stage in STAGE:
        for note in ("made", "timing"):
            spoil(workspace.state(stage) / f"{note}.json", how)
    spoil(workspace.data / ".state" / "profile.json", how)
    assert all(run(name).cached for name in STAGE)
    for stage in STAGE:
        spoil(workspace.data / ".locks" / stage, how)
    assert all(run(name).cached for name in STAGE)
    with pytest.raises(MadeAgain):
        run("prompts", force=True)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_manifest_without_our_note_is_taken_for_nobodys_and_stays(copied, how):
    """Both are lost: nothing says that the folder is ours, so nothing of it is replaced."""
    run, workspace = copied
    folder = workspace.folder("masks")
    whole = (folder / "manifest.json").read_bytes()
    spoil(folder / "manifest.json", how)
    if how == "flipped":  # where nothing can be read; a digit elsewhere leaves a manifest of ours
        (folder / "manifest.json").write_bytes(flipped(whole, 0))
    (workspace.state("masks") / "made.json").unlink()
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(ManifestError, match="masks is in the way.*move it elsewhere"):
        run("masks")
    assert sorted(p.name for p in folder.iterdir()) == before


@pytest.mark.parametrize("how", [name for name in DAMAGES if name != "deleted"])
@pytest.mark.parametrize("passed", [True, False])
def test_a_damaged_verdict_is_no_pass(copied, how, passed):
    run, workspace = copied
    path = workspace.state("masks") / "quality.json"
    write_json(path, sealed(read_json(path, dict) | {"passed": passed, "failures": ["x"]}))
    spoil(path, how)
    with pytest.raises(QualityError) as refused:
        run("triplets")
    assert exit_code(refused.value) == errors.STAGE and str(path) in str(refused.value)
    assert "Judge it again" in str(refused.value)
    path.unlink()
    assert run("triplets").cached


def test_no_bit_of_a_failures_verdict_makes_it_a_pass(copied):
    """In its digest, say, which would make it a verdict on other data."""
    run, workspace = copied
    path = workspace.state("masks") / "quality.json"
    write_json(path, sealed(read_json(path, dict) | {"passed": False, "failures": ["x"]}))
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(flipped(whole, place))
        with pytest.raises(QualityError):
            refuse_failed_inputs(STAGE["triplets"], workspace)


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("model", ["grounding", "segmenter"])
def test_a_damaged_champion_is_one_clear_error_and_never_replaced(copied, model, how):
    run, workspace = copied
    folder = workspace.data / "champion" / model
    spoil(folder / "scores.parquet", how)
    with pytest.raises(ValueError, match="scores.parquet is missing or not what.*bring it back"):
        promotion._champion(workspace, model, promotion.CONTESTS[model])
    if how == "deleted":
        return  # without a record there is no champion: the next candidate is the first
    spoil(folder / "record.json", how)
    with pytest.raises(ValueError, match=r"record\.json.*who is champion.*remove"):
        promotion.champion_record(workspace, model, promotion.RECORD)
