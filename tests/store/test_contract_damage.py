"""What is damaged is named, and made again alone: shards, manifests, notes, trainings."""

import shutil

import pytest

from ml.errors import ManifestError, QualityError
from ml.pipeline.workspace import Workspace
from ml.store import files
from ml.store.files import Damaged, read_json, write_json
from ml.store.sidecars import sidecar
from ml.store.successor import Successor

# --- what is damaged is named and made again alone ------------------------------------------------


@pytest.mark.parametrize("spoil", ["flipped", "lost", "cut off", "sidecar lost"])
def test_one_bad_shard_is_made_again_alone(small, capsys, spoil):
    run, workspace, runs = small
    first = run("one")
    folder = workspace.folder("one")
    path = folder / "shard-00001.parquet"
    kept = {name: (folder / f"shard-0000{name}.parquet").stat().st_ino for name in (0, 2)}
    data = bytearray(path.read_bytes())
    if spoil == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: len(data) // 2] if spoil == "cut off" else bytes(data))
    if spoil in ("lost", "sidecar lost"):
        path.unlink()
    if spoil == "sidecar lost":
        sidecar(path).unlink()
    runs.clear()
    again = run("one")
    assert runs == [[2, 3]] and again.digest == first.digest and not again.cached
    assert "shard-00001.parquet is" in capsys.readouterr().err
    assert kept == {name: (folder / f"shard-0000{name}.parquet").stat().st_ino for name in (0, 2)}


def test_a_stray_file_is_named_and_left(small, capsys):
    run, workspace, runs = small
    run("one")
    stray = workspace.folder("one") / "notes.txt"
    stray.write_text("mine")
    assert run("one").cached and run("two").facts == {"total": 15}
    assert "notes.txt was not made by the stage 'one'" in capsys.readouterr().err
    assert stray.read_text() == "mine" and len(runs) == 3


def test_a_stray_that_would_be_read_along_is_refused_where_it_is_read(small):
    run, workspace, runs = small
    run("one")
    stray = workspace.folder("one") / "shard-00003.parquet"
    shutil.copyfile(workspace.folder("one") / "shard-00000.parquet", stray)
    assert run("one").cached and len(runs) == 3
    with pytest.raises(ManifestError, match="shard-00003.parquet was not made by the stage 'one'"):
        run("two")
    assert stray.exists()


BROKEN = {
    "an empty object": "{}",
    "a list": "[]",
    "empty": "",
    "half": '{"seconds": 1',
    "null": "null",
    "a word": "whole",
    "of other types": '{"seconds": "1", "peak_rss_mb": [], "digest": 3, "passed": "yes", '
    '"stage": 1, "files": 3, "recipe": 1, "sha256": 2, "rows": true, "failures": 0, "inputs": 1, '
    '"model": 0, "score": "x", "test_set": 0, "scores_sha256": 0}',
    "no text": b"\xff\xfe\x00",
}


@pytest.fixture(params=BROKEN.values(), ids=BROKEN)
def broken(request):
    return lambda path: path.write_bytes(
        request.param if isinstance(request.param, bytes) else request.param.encode()
    )


def test_notes_that_cannot_be_read_count_as_absent(small, broken, capsys):
    run, workspace, runs = small
    first = run("one")
    for name in ("timing.json", "made.json"):
        broken(workspace.state("one") / name)
    report = run("one")
    assert report.cached and report.seconds == 0 and report.digest == first.digest
    assert "timing.json" in capsys.readouterr().err
    broken(sidecar(workspace.folder("one") / "shard-00001.parquet"))
    assert run("one").cached, "sidecars serve the making"
    assert run("one", force=True).digest == first.digest
    half = Successor(workspace.data, "one")
    with pytest.raises(ValueError, match="can't work"):
        run("one", -1)
    broken(half.note)
    assert run("one", 1).facts == {"rows": 6} and not half.note.exists()


def test_a_manifest_that_cannot_be_read_is_made_again_with_its_shards(small, broken):
    run, workspace, runs = small
    first = run("one")
    broken(workspace.folder("one") / "manifest.json")
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        run("two")
    assert run("one").digest == first.digest and len(runs) == 3, "no shard was made again"


def test_a_verdict_that_cannot_be_read_is_no_pass(small, broken):
    run, workspace, _ = small
    run("one")
    broken(workspace.state("one") / "quality.json")
    with pytest.raises(QualityError, match="no readable verdict.*quality.json"):
        run("two")
    (workspace.state("one") / "quality.json").unlink()
    assert run("two").facts == {"total": 15}


def test_a_champions_record_that_cannot_be_read_is_one_clear_error(tmp_path, broken):
    from ml.pipeline.stages.promotion import champion_folder, champion_record

    workspace = Workspace(tmp_path, "micro")
    assert champion_record(workspace, "segmenter") is None
    file = champion_folder(workspace, "segmenter") / "record.json"
    file.parent.mkdir(parents=True)
    broken(file)
    with pytest.raises(ValueError, match=r"record\.json.*who is champion.*remove"):
        champion_record(workspace, "segmenter")
    with pytest.raises(Damaged, match="record.json"):
        read_json(file, {"digest": str})


def test_the_page_of_the_checks_leaves_out_a_verdict_that_cannot_be_read(tmp_path, broken):
    from ml.quality.page import page_of, write_page

    workspace = Workspace(tmp_path, "micro")
    for stage in ("prompts", "masks"):
        write_json(
            workspace.state(stage) / "quality.json",
            {"digest": "", "passed": False, "failures": [], "results": []},
        )
    broken(workspace.state("prompts") / "quality.json")
    write_page(workspace)
    page = page_of(workspace).read_text(encoding="utf-8")
    assert "masks: failed" in page and "prompts" not in page


def test_a_note_of_the_studies_that_cannot_be_read_is_absent(tmp_path, broken):
    from ml.studies.study_run import open_run

    lab = open_run("quick", tmp_path, 1)
    path = lab.table_path("x")
    write_json(path, 1)
    lab.sign(path, "recipe")
    assert lab.in_place(path, "recipe") and not lab.in_place(path, "other")
    broken(path.with_name(f".{path.name}.recipe.json"))
    assert not lab.in_place(path, "recipe")


# --- trainings ------------------------------------------------------------------------------------


def test_a_damaged_training_state_is_said_and_not_used(tmp_path, capsys):
    import torch

    from ml.store.training_state import load_state, save_state

    file = tmp_path / ".progress" / "training.pt"
    assert load_state(file) is None
    save_state(file, {"weights": torch.arange(1000.0), "curve": [{"step": 3, "loss": 0.5}]})
    loaded = load_state(file)
    assert torch.equal(loaded["weights"], torch.arange(1000.0)) and loaded["curve"][0]["step"] == 3
    whole = file.read_bytes()
    places = [0, 30, 90, 120, len(whole) // 2, len(whole) - 1]
    for data in [whole[:n] for n in (0, 10, 100, len(whole) // 2, len(whole) - 1)] + [
        whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in places
    ]:
        files.say.cache_clear()
        file.write_bytes(data)
        assert load_state(file) is None
        assert "starts again from its beginning" in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["cut off", "flipped"])
def test_a_grounding_training_with_a_damaged_state_starts_again(tmp_path, spoil):
    from ml.grounding.training import train
    from tests.grounding.test_grounding_training import ENTITIES, PARAMS, Toy, make_module

    toys = Toy(20, 0), Toy(6, 1)
    file = tmp_path / "training.pt"
    whole = train(make_module("paper"), *toys, ENTITIES, PARAMS, 0).curve
    train(make_module("paper"), *toys, ENTITIES, PARAMS, 0, file, stop_after=4)
    data = bytearray(file.read_bytes())
    data[-4000:] = bytes(4000) if spoil == "flipped" else b""
    file.write_bytes(data)
    assert train(make_module("paper"), *toys, ENTITIES, PARAMS, 0, file).curve == whole


@pytest.mark.parametrize("spoil", ["cut off", "flipped"])
def test_a_segmenters_damaged_state_starts_again(tmp_path, spoil):
    import torch

    from ml.segmenters.training import CHECKPOINT, _resume
    from ml.store.training_state import save_state

    class Fresh:
        def load_state_dict(self, state):
            raise AssertionError("a damaged state was put back")

    save_state(tmp_path / CHECKPOINT, {"model": torch.ones(9), "curve": [1]})
    data = bytearray((tmp_path / CHECKPOINT).read_bytes())
    data[-60:] = bytes(60) if spoil == "flipped" else b""
    (tmp_path / CHECKPOINT).write_bytes(data)
    assert _resume(tmp_path, Fresh()) == []


def test_stored_pictures_of_a_training_are_verified(tmp_path):
    import pandas as pd

    from ml.segmenters.pictures import is_stored, open_encoded, store_encoded

    file = tmp_path / ".progress" / "pictures.arrow"
    assert not is_stored(file)
    store_encoded(file, [pd.DataFrame({"image": [b"a" * 50], "label": [b"b" * 50]})])
    assert is_stored(file) and len(open_encoded(file)[0]) == 1
    data = bytearray(file.read_bytes())
    data[data.index(b"aaaa")] ^= 1
    file.write_bytes(data)
    assert not is_stored(file)
