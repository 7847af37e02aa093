"""Draw and Find without a page, against the library's own door; files to take along."""

import io
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ml.app.downloads import slug, write_coco, write_masks
from ml.app.drawing import draw
from ml.app.finding import find
from ml.app.models import Models
from ml.app.serving import QUIET, quiet
from ml.errors import ManifestError
from ml.pipeline.stages.promotion import champion_folder
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from ml.store.manifest import Manifest, describe_files, read_manifest, write_manifest
from ml.store.seals import sealed

PROMPT, WORDS = "a photograph of a dog and a cat", ["dog", "cat"]


@pytest.fixture(scope="module")
def models(grounding_folder, segmenter_made) -> Models:
    root = grounding_folder.parents[2]
    return Models(load_params(), Workspace(root, "micro"), segmenter_made)


def told(share: float, doing: str) -> None:
    assert 0 <= share <= 1 and doing


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_draw_gives_the_pictures_and_masks_of_the_door(models, door):
    answers = draw(models, f"  {PROMPT} ", "dog, cat", 5, 4, 2, told)
    truth = door([PROMPT] * 2, [WORDS] * 2, num_inference_steps=4, seed=5)
    assert [own.name for own in answers] == [f"{PROMPT}, seed {seed}" for seed in (5, 6)]
    for answer, image, masks, soft in zip(
        answers, truth.images, truth.masks, truth.probabilities, strict=True
    ):
        assert np.array_equal(answer.picture, np.asarray(image))
        assert [own.word for own in answer.words] == WORDS
        for own in answer.words:
            assert np.array_equal(own.mask, masks[own.word])
            assert np.allclose(own.probability, soft[own.word], atol=1e-5)
            assert own.presence >= 0 and own.attention.shape == own.mask.shape
            assert np.array_equal(own.attention_mask, own.attention > models.daam_threshold())


@pytest.mark.parametrize(
    ("prompt", "words", "seed", "steps", "count", "says"),
    [
        (" ", "dog", 0, 4, 1, "no prompt"),
        (PROMPT, "bus", 0, 4, 1, "'bus' is not in the prompt"),
        (PROMPT, "dog", None, 4, 1, "seed"),
        (PROMPT, "dog", 2**32 - 1, 4, 2, "seed"),
        (PROMPT, "dog", 0, 1, 1, "steps"),
        (PROMPT, "dog", 0, 4, 9, "1 to 4 pictures"),
        ("a dog " * 100, "dog", 0, 4, 1, "tokens"),
    ],
)
def test_what_cannot_be_drawn_is_refused(models, prompt, words, seed, steps, count, says):
    with pytest.raises(ValueError, match=says):
        draw(models, prompt, words, seed, steps, count, told)


def test_find_gives_the_masks_of_the_door_and_files_that_others_read(models, door, tmp_path):
    picture = door(PROMPT, WORDS, num_inference_steps=4, seed=2).images[0].resize((90, 70))
    found = find(models, png(picture), "mine/picture.png", "dog, cat", 0.0, told)
    truth = door.ground(picture, WORDS, min_presence=0.0)
    for own in found.answer.words:
        assert np.array_equal(own.mask, truth.masks[0][own.word])
        assert own.presence == pytest.approx(truth.presence[0][own.word])
    assert found.segmented is not None and found.segmented.labels.shape == (70, 90)
    coco = COCO(write_coco(found, tmp_path))
    assert coco.imgs[1]["file_name"] == "mine/picture.png"
    for own in coco.anns.values():
        word = coco.cats[own["category_id"]]["name"]
        mask = truth.masks[0][word]
        assert np.array_equal(coco.annToMask(own) > 0, mask) and own["area"] == mask.sum()
        rows, columns = np.nonzero(mask)
        left, top = columns.min(), rows.min()
        assert own["bbox"] == [left, top, columns.max() - left + 1, rows.max() - top + 1]
    with zipfile.ZipFile(write_masks(found, tmp_path)) as archive:
        assert archive.namelist() == ["1-dog.png", "2-cat.png"]
        for place, word in enumerate(WORDS, 1):
            own = np.asarray(Image.open(io.BytesIO(archive.read(f"{place}-{word}.png"))))
            assert np.array_equal(own, truth.masks[0][word] * np.uint8(255))


def test_words_below_the_threshold_get_no_mask(models, door, tmp_path):
    picture = door(PROMPT, WORDS, num_inference_steps=4, seed=2).images[0]
    found = find(models, png(picture), "x.png", "dog, cat", 1e6, told)
    assert not any(own.mask.any() for own in found.answer.words)
    assert not json.loads(write_coco(found, tmp_path).read_text())["annotations"]


def test_the_files_of_an_answer_go_with_the_app(models, door, tmp_path, monkeypatch):
    """They were left in the system's temporary folder, with the names of people's pictures."""
    gr = pytest.importorskip("gradio")
    from ml.app import tab_find

    upload, temporary = tmp_path / "upload.png", tmp_path / "temporary"
    upload.write_bytes(png(door(PROMPT, WORDS, num_inference_steps=4, seed=2).images[0]))
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for name in (*QUIET, "GRADIO_TEMP_DIR", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "theirs")  # put back at the end of the test
    with quiet() as folder:
        with gr.Blocks(analytics_enabled=False) as blocks:
            tab_find.lay_out(models)
        answer = next(own.fn for own in blocks.fns.values() if own.name == "answer")
        brought = {"path": str(upload), "orig_name": "secret-holiday.png"}
        *_, pngs, coco = answer(brought, "dog, cat", 0.0, lambda share, desc: None)
        assert "secret-holiday.png" in Path(coco["value"]).read_text()
        assert Path(pngs["value"]).is_relative_to(folder)
    assert not list(temporary.iterdir())


def test_the_segmenters_title_follows_promotion_and_rollback(segmenter_made, tmp_path):
    workspace = Workspace(tmp_path, "micro")
    folder = Path(shutil.copytree(segmenter_made, workspace.folder("segmenter")))
    write_manifest(folder, Manifest("segmenter", 1, {}, {}, describe_files(folder, {}), {}))
    models = Models(load_params(), workspace)
    first = models.segmenter()
    assert first.title == "this run's segmenter (no champion)"
    record = champion_folder(workspace, "segmenter") / "record.json"
    record.parent.mkdir(parents=True)
    for digest, title in (
        (read_manifest(folder).digest, "the champion segmenter"),
        ("another's", "this run's segmenter (no champion)"),
    ):
        record.write_text(json.dumps(sealed({"digest": digest})))
        assert models.segmenter().title == title
        assert models.segmenter().model is first.model


def test_words_are_no_paths_in_the_files(tmp_path):
    assert [slug(word) for word in ("../a/b", "tv monitor", "Ärger", "??")] == [
        "a_b",
        "tv_monitor",
        "Ärger",
        "word",
    ]


def test_a_profile_without_a_model_says_what_to_run_and_one_made_later_is_opened(
    grounding_folder, tmp_path
):
    models = Models(load_params(), Workspace(tmp_path, "micro"))
    with pytest.raises(ManifestError, match="no finished grounding_model.*make run PROFILE=micro"):
        draw(models, PROMPT, "dog", 0, 2, 1, told)
    assert models.segmenter() is None
    shutil.copytree(grounding_folder, tmp_path / "data/micro/grounding_model")
    foundation = Path(grounding_folder.parents[1] / "foundation")
    (tmp_path / "data/foundation").symlink_to(foundation)
    assert len(draw(models, PROMPT, "", 0, 2, 1, told)[0].words) == 2
