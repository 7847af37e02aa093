"""Studies 6 and 7: what is asked for, scoring by hand-made masks, AUROC by counting pairs."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from ml.drawn_world.shapes import MAIN_COLOURS
from ml.images.run_lengths import encode_rle
from ml.images.stored import Pictures
from ml.studies import absent_words, beyond_nouns
from ml.studies.absent_methods import mask_rows
from ml.studies.absent_questions import absent_classes, question
from ml.studies.absent_rows import MASK_SHARE
from ml.studies.absent_words import (
    area_counts,
    auroc,
    auroc_cell,
    every_seed_has_masks,
    share_counts,
)
from ml.studies.beyond_nouns_rows import score_rows
from ml.studies.prompt_sets import all_classes
from ml.studies.records import Record
from ml.studies.relation_scenes import LEFT, RIGHT, by_x, colour_scene, relation_scenes
from ml.studies.scores import ratio

CLASSES = all_classes().classes


def box(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((64, 64), bool)
    mask[top : top + height, left : left + width] = True
    return mask


class _Blank(Pictures):
    def read(self, shard, row) -> np.ndarray:
        return np.zeros((64, 64, 3), np.uint8)


def record(entities=("dog", "diningtable"), real=False, seed=5) -> Record:
    rles = tuple(encode_rle(box(8 * i, 0, 8, 32)) for i in range(len(entities)))
    words = tuple(all_classes().words[name][0] for name in entities)
    return Record(
        key="sim-000001",
        text="a dog near a dining table",
        entities=entities,
        words=words,
        phrases=(),
        cell="",
        subset="sim",
        seed=seed,
        size=(64, 64),
        shard=None,
        row=0,
        pictures=_Blank(),
        latent=np.zeros((6, 16, 16), np.float32),
        timestep=20,
        rles=rles,
        daam=None,
        latents=np.zeros((1, 6, 16, 16), np.float32),
        sources=("generated",),
        timesteps=(20,),
        evidence=None,
        truth_rles=rles if real else ("",) * len(rles),
        place=0,
    )


def test_absent_classes_are_not_in_the_picture():
    for seed in range(40):
        own = record(seed=seed)
        chosen = absent_classes(own, CLASSES, 5)
        assert len(set(chosen)) == 5 and not set(chosen) & set(own.entities)
        assert chosen[:2] == absent_classes(own, CLASSES, 2)  # more words, the first the same
    assert absent_classes(record(seed=1), CLASSES, 5) != absent_classes(record(seed=2), CLASSES, 5)


def test_questions_name_all_words_and_keep_their_order():
    own, absent = record(), ["tvmonitor", "cow", "bus"]
    asked = question(own, absent)
    assert sorted(asked.words) == sorted(
        all_classes().words[n][0] for n in (*own.entities, *absent)
    )
    assert all(phrase in asked.text for phrase in asked.phrases)
    assert asked.shown == own.text and question(record(real=True), absent).shown == asked.text
    kept = question(own, absent, drop=["cow", "dog"])
    assert kept.words == tuple(w for w in asked.words if w not in ("cow", "dog"))


def test_rows_of_hand_made_masks():
    own = record(real=True)
    asked = question(own, ["cow"])
    masks = {
        "dog": box(0, 0, 8, 16),
        "dining table": np.zeros((64, 64), bool),
        "cow": box(0, 0, 5, 4),
    }
    rows = pd.DataFrame(
        mask_rows(
            own, asked, np.stack([masks[w] for w in asked.words]), 1, {"seed": 0, "method": "x"}
        )
    ).set_index("entity")
    assert rows.there.to_dict() == {"dog": True, "diningtable": True, "cow": False}
    assert rows.iou["dog"] == 0.5 and rows.iou["diningtable"] == 0 and np.isnan(rows.iou["cow"])
    assert rows.area["cow"] == 20 / 4096 < MASK_SHARE < 21 / 4096


def test_shares_and_areas_by_hand():
    rows = pd.DataFrame({"seed": 0, "key": ["a", "a", "b", "b"], "area": [0.2, 0.0, 0.1, 0.004]})
    assert ratio(share_counts(rows)[0].sum(0)) == pytest.approx(50)
    assert ratio(area_counts(rows)[0].sum(0)) == pytest.approx(15)
    assert share_counts(rows).tolist() == [[[1, 2], [1, 2]]]
    assert every_seed_has_masks(rows)
    assert not every_seed_has_masks(pd.concat([rows, rows.assign(seed=1, area=0.0)]))
    assert np.isnan(ratio(area_counts(rows[rows.area < MASK_SHARE])[0].sum(0)))


def test_auroc_counts_pairs():
    rng = np.random.default_rng(0)
    there = rng.random(60) < 0.4
    value = np.round(rng.normal(size=60) + there, 1)  # with ties
    pairs = value[there][:, None] - value[~there][None]
    expected = 100 * ((pairs > 0).mean() + (pairs == 0).mean() / 2)
    rows = pd.DataFrame(
        {"value": value, "there": there, "seed": 0, "key": [f"{i // 3}" for i in range(60)]}
    )
    cell = auroc_cell(rows, 50)
    assert cell.value == pytest.approx(expected) and cell.low < cell.value < cell.high
    assert cell.spread is None
    assert auroc(np.array([[1.0, 0.0], [0.0, 1.0]])) == 100
    assert np.isnan(auroc(np.array([[0.0, 0.0], [0.0, 1.0]])))
    both = pd.concat([rows, rows.assign(seed=1, value=-rows.value)])
    assert auroc_cell(both, 50).value == pytest.approx(50)


def test_two_of_one_class_are_asked_for_by_colour():
    for i, name in enumerate(list(MAIN_COLOURS)[:5]):
        asked = colour_scene(i)
        assert asked.scene.classes == (name, name)
        assert asked.scene.colours[0] != asked.scene.colours[1]
        for word, own, other in zip(asked.scored, asked.named, asked.other, strict=True):
            assert asked.words[word].startswith(asked.scene.colours[own])
            assert {own, other} == {0, 1} and asked.words[word] in asked.text


def test_the_other_class_stands_between_two_of_one():
    for i in range(6):
        left, right = relation_scenes(i)
        assert (left.kind, right.kind) == (LEFT, RIGHT) and left.scene is right.scene
        order = by_x(left.scene.masks)
        names = [left.scene.classes[k] for k in order]
        assert names[0] == names[2] != names[1]
        assert left.named == right.other == (order[0],) and left.other == right.named == (order[2],)
        assert f" {LEFT} " in left.text and f" {RIGHT} " in right.text


def test_objects_are_ordered_by_their_middle():
    assert by_x(np.stack([box(0, 40, 4, 4), box(9, 2, 4, 30), box(0, 50, 9, 9)])) == [1, 0, 2]


def test_scores_of_named_and_other():
    asked = colour_scene(0)
    scene = dataclasses.replace(asked.scene, masks=np.stack([box(0, 0, 8, 8), box(0, 32, 8, 8)]))
    asked = dataclasses.replace(asked, scene=scene)
    rows = score_rows(asked, np.stack([box(0, 0, 8, 4), box(0, 0, 8, 8)]), {"seed": 0})
    assert [(r["named"], r["other"], r["right"]) for r in rows] == [(0.5, 0, 1), (0, 1, 0)]
    empty = score_rows(asked, np.zeros((2, 64, 64), bool), {"seed": 0})
    assert [r["right"] for r in empty] == [0.5, 0.5]


def test_a_study_that_was_not_made_says_so(tmp_path):
    from ml.studies.study_run import open_run

    run = open_run("quick", tmp_path)
    object.__setattr__(run, "_model", "none")  # what the diffusion model's digest would be
    for study in (absent_words, beyond_nouns):
        with pytest.raises(ValueError, match="python -m ml.studies"):
            study.blocks(run)
