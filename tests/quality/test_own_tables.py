"""The checks on a user's own pictures with masks: sound ones pass, each fault breaks its rule."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from benchmarks.poisons.copies import breaks
from ml.images.leaks import thumbnails
from ml.images.run_lengths import decode_rle
from ml.images.stored import load_pictures
from ml.pipeline.runner import run_stage
from ml.quality.frames import facts
from ml.quality.mask_tables import triplet_tables
from ml.quality.offenders import offenders
from ml.quality.own_tables import own_tables
from ml.quality.rules import RULES, bounds
from ml.quality.verdicts import Result
from ml.settings.profile import load_params
from ml.store.schemas import TRIPLETS
from ml.store.sidecars import OWN
from tests.builders.handmade import data_stages
from tests.builders.own_pictures import scenes_of, write_folder

CLASSES = ("cat", "bird")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(settings, workspace) with four own pictures, one of which is there twice."""
    root = tmp_path_factory.mktemp("own")
    workspace = data_stages(root)
    scenes = scenes_of(["cat"], ["bird"], ["cat", "bird"])
    folder = write_folder(root / "own", [*scenes, scenes[0]], CLASSES)
    params = load_params("ci")
    params = dataclasses.replace(
        params,
        triplets=dataclasses.replace(params.triplets, labels=str(folder)),
        benchmark=dataclasses.replace(params.benchmark, source="none"),  # quicker
    )
    run_stage("triplets", params, root)
    return params, workspace


def broken(params, tables):
    limits = bounds("triplets", params)
    own = [rule for rule in RULES["triplets"] if rule.table.startswith("own")]
    return [rule.name for rule in own if breaks(rule, tables[rule.table], limits)]


def test_sound_pictures_pass_and_are_in_no_other_table(made):
    params, workspace = made
    tables = triplet_tables(params, workspace)
    limits = bounds("triplets", params)
    assert [r.name for r in RULES["triplets"] if breaks(r, tables[r.table], limits)] == []
    assert list(tables["own"].reason) == ["", "", "", "", "repeated_picture"]
    for name in ("rows", "labels", "accepted"):
        assert OWN not in set(tables[name]["subset"])


def test_without_own_pictures_the_rules_hold(made):
    _, workspace = made
    params = load_params("ci")
    every = facts(workspace, "triplets", TRIPLETS)
    tables = own_tables(params, workspace, every[every["subset"] != OWN])
    assert broken(params, tables) == []


FAULTS = {
    "own_classes_taught": ("entity", "dog"),  # unseen in voc-1
    "own_as_pictured": ("text", "a photograph of a cat and a bird!"),
    "own_areas_true": ("area", 0.3),
    "own_reasons_known": ("reason", "no reason at all"),
    "own_named_in_text": ("word", "dog"),
    "own_keys_apart": ("key", "train-000000"),
    "own_have_masks": ("rle", ""),
    "own_masks_fit": ("rle", '{"size": [2, 2], "counts": "13"}'),
    "own_rejected_with_reason": ("accepted", False),
    "own_not_blank": ("std", 0.5),
}


@pytest.mark.parametrize("rule", FAULTS)
def test_a_fault_breaks_its_rule(rule, made):
    params, workspace = made
    every = facts(workspace, "triplets", TRIPLETS)
    column, value = FAULTS[rule]
    first = every.index[every["subset"] == OWN][0]
    every.loc[first, column] = value
    assert rule in broken(params, own_tables(params, workspace, every))


def test_a_picture_of_the_benchmark_is_found_again(made, monkeypatch):
    """Whatever the stage noted: the pictures are compared here, too."""
    params, workspace = made
    thumbs = thumbnails([scenes_of(["cat"])[0].image])
    monkeypatch.setattr("ml.quality.own_tables.benchmark_thumbs", lambda *_: thumbs)
    every = facts(workspace, "triplets", TRIPLETS)
    assert broken(params, own_tables(params, workspace, every)) == ["own_not_benchmark"]


def test_own_pictures_that_break_a_rule_are_shown(made):
    """Beside a generated one: both pictures, each with its own mask laid over."""
    _, workspace = made
    rows = facts(workspace, "triplets", TRIPLETS)
    own = rows[(rows["subset"] == OWN) & rows["accepted"]].iloc[0]
    drawn = rows[(rows["subset"] != OWN) & rows["accepted"]].iloc[0]
    both = [{"key": str(row.key), "entity": str(row.entity)} for row in (own, drawn)]
    result = Result("own_areas", False, 2, "y", 1.0, ["own", "drawn"], both)
    sheet = np.asarray(Image.open(io.BytesIO(offenders("triplets", result, workspace))))
    folders = (workspace.folder("triplets") / OWN, workspace.folder("images"))
    for place, (row, folder) in enumerate(zip((own, drawn), folders, strict=True)):
        picture = Image.fromarray(load_pictures(folder, [row.key])[row.key])
        big = np.asarray(picture.resize((152, 152), Image.Resampling.BICUBIC)).astype(int)
        left = 6 + place * (152 + 6)
        moved = np.abs(sheet[6 : 6 + 152, left : left + 152].astype(int) - big).max(2)
        mask = Image.fromarray(decode_rle(row.rle))
        inside = np.asarray(mask.resize((152, 152), Image.Resampling.NEAREST))
        assert np.median(moved[inside]) > 20 > 8 > np.median(moved[~inside])
