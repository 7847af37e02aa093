"""A failed check shows the pictures that break it, and says what to do: compared with the pixels
in the shards, which are known because they were drawn by hand."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from ml.images.facts import picture_facts
from ml.images.png import encode_png
from ml.pipeline.workspace import Workspace
from ml.quality.advice import advice
from ml.quality.offenders import OVERLAYS, offenders
from ml.quality.rules import RULES
from ml.quality.verdicts import Result, Verdict
from ml.settings.profile import load_params
from ml.store.shards import read_shards
from orchestration import checks
from orchestration.checks import judge
from orchestration.expectations import EXAMPLES
from orchestration.metadata import MAX_PICTURE
from orchestration.resources import Project
from tests.builders import handmade

TILE = 152 + 6  # pixels from one picture of a sheet to the next
FLAT = np.full((64, 64, 3), 90, np.uint8)


def judged(workspace: Workspace, stage: str) -> dict:
    project = Project(profile="ci", root=str(workspace.root))
    return {result.check_name: result for result in judge(project, stage)}


def shown(result) -> np.ndarray:
    """The sheet of a check's metadata, as a browser would decode it."""
    text = result.metadata["offending_pictures"].value
    (data,) = re.fullmatch(r"!\[[^]]*\]\(data:image/jpeg;base64,(.+)\)", text).groups()
    raw = base64.b64decode(data)
    assert len(raw) < MAX_PICTURE
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")).astype(int)


def tiles(sheet: np.ndarray, count: int) -> list[np.ndarray]:
    return [sheet[6 : 6 + 152, 6 + i * TILE : 6 + i * TILE + 152] for i in range(count)]


def test_the_pictures_that_break_a_rule_are_shown_and_no_others(workspace):
    def change(rows):
        flat = rows.index % 7 == 3
        rows.loc[flat, "image"] = encode_png(FLAT)
        for name, value in picture_facts(FLAT).items():
            rows.loc[flat, name] = value
        return rows

    handmade.write_images(workspace, change)
    found = judged(workspace, "images")
    failed, passed = found["not_blank"], found["keys_unique"]
    assert not failed.passed and passed.passed
    assert "make it again: `python -m ml images --profile ci --force`" in failed.description
    assert "make it again" not in passed.description
    assert "offending_pictures" not in passed.metadata
    sheet = shown(failed)
    assert sheet.shape[1] == 6 + EXAMPLES * TILE
    for tile in tiles(sheet, EXAMPLES):
        assert np.abs(tile - 90)[8:-8, 8:-8].max() < 4, "each is one of the flat pictures"
    assert "contact_sheet" in failed.metadata, "beside a picture of the whole set"


def test_what_people_typed_is_shown_as_they_typed_it(monkeypatch, workspace):
    """The UI reads a check's sentence as Markdown."""
    typed = "entity <img src=x>, word *star* [a](b)"
    made = Result("not_blank", False, 1, "y", 1.0, [typed])
    verdict = Verdict("images", "d", [made], workspace.data)
    monkeypatch.setattr(checks, "validate", lambda *_: verdict)
    said = judged(workspace, "images")["not_blank"].description
    assert r"entity &lt;img src=x&gt;, word \*star\* \[a\](b)" in said
    assert "`python -m ml images" in said


def test_a_mask_is_laid_over_its_picture(workspace):
    handmade.write_masks(workspace, lambda rows: rows.assign(score=0.01))
    failed = judged(workspace, "masks")["scores_in_range"]
    examples = failed.metadata["examples"].value
    key, entity = re.match(r"key ([^,]+), entity ([^,]+)", examples[0]).groups()
    rows = read_shards(workspace.folder("masks"))
    row = rows[(rows.key == key) & (rows.entity == entity)].iloc[0]
    images = read_shards(workspace.folder("images"), ["key", "image", "seed", "entities"])
    picture = images[images.key == key].iloc[0]
    scene = handmade.draw_scene(picture.seed, classes=list(picture.entities))
    mask = scene.masks[scene.classes.index(entity)]
    assert row.found and mask.any() and not mask.all()
    big = np.asarray(Image.fromarray(scene.image).resize((152, 152), Image.Resampling.BICUBIC))
    moved = np.abs(tiles(shown(failed), 1)[0] - big.astype(int)).max(2)
    inside = np.asarray(Image.fromarray(mask).resize((152, 152), Image.Resampling.NEAREST))
    assert np.median(moved[inside]) > 20 > 8 > np.median(moved[~inside])


def test_rows_without_pictures_have_none_and_broken_ones_a_grey_one(workspace):
    handmade.poison_prompts(workspace, lambda rows: rows.assign(seed=7))
    failed = judged(workspace, "prompts")["seeds_unique"]
    assert "make it again" in failed.description and "offending_pictures" not in failed.metadata
    handmade.write_images(
        workspace, lambda rows: rows.assign(image=rows.image.where(rows.index < 9, b"no picture"))
    )
    key = read_shards(workspace.folder("images"), ["key"]).key[9]
    broken = Result("x", False, 1, "y", 1.0, [f"key {key}"], [{"key": key}])
    grey = np.asarray(Image.open(io.BytesIO(offenders("images", broken, workspace))))
    assert np.abs(tiles(grey.astype(int), 1)[0] - 160)[8:-8, 8:-8].max() < 4
    gone = Result("x", False, 1, "y", 1.0, ["key gone"], [{"key": "gone"}])
    assert offenders("images", gone, workspace) == b""


@pytest.mark.parametrize("stage", ["benchmark", "masks", "triplets", "synthetic_dataset"])
def test_every_stage_with_pictures_can_show_a_row(stage, workspace):
    rows = read_shards(workspace.folder(stage))
    row = {"key": str(rows.key[0])}
    if OVERLAYS[stage] == "rle":
        row["entity"] = str(rows.entity[0])
    result = Result("x", False, 1, "y", 1.0, [f"key {row['key']}"], [row])
    assert offenders(stage, result, workspace).startswith(b"\xff\xd8")


def test_what_to_do_names_the_command_and_the_setting(workspace, tmp_path):
    params = load_params("ci")
    text = advice("images", "not_blank", params)
    assert "`python -m ml images --profile ci --force`" in text
    assert "`triplets.min_std` in `profiles/ci.yaml`" in text
    own = tmp_path / "yard.yaml"
    own.write_text("base: ci\n")
    text = advice("masks", "masks_in_place", load_params(str(own)))
    assert f"--profile {own} --force" in text and f"`checks.placement` in `{own}`" in text
    assert "in `params.yaml`" in advice("images", "not_blank", load_params())
    for stage, rules in RULES.items():
        for rule in rules:
            said = advice(stage, rule.name, params)
            assert ("docs/checks.md#" in said) != ("in `profiles/ci.yaml`" in said), rule.name
