"""Protocol I's measure and the DAAM baseline, on maps and masks made by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml.baselines.daam import (
    best_threshold,
    by_maximum,
    candidate_thresholds,
    expand_as,
    strongest,
    threshold_masks,
)
from ml.grounding.samples import Sample, refuse_unseen
from ml.images.run_lengths import encode_rle
from ml.images.stored import Pictures
from ml.metrics.protocol_one import cell_scores, class_mean_iou
from ml.pipeline.stages.grounding_scores import protocol_one, score_rows
from ml.words.vocabulary import load_vocabulary


def make_sample(entities, masks, present=None, key="sim-000000", cell="two_seen") -> Sample:
    masks = np.asarray(masks, bool)
    return Sample(
        key=key,
        text="",
        entities=tuple(entities),
        words=tuple(entities),
        phrases=tuple(entities),
        cell=cell,
        subset="sim",
        seed=0,
        size=masks.shape[1:],
        shard=Path("none"),
        row=0,
        pictures=Pictures(),
        latent=np.zeros((1, 2, 2), np.float32),
        timestep=60,
        rles=tuple(
            encode_rle(mask) if there else ""
            for mask, there in zip(masks, present or [True] * len(masks), strict=True)
        ),
        daam=np.zeros((len(masks), 2, 2), np.float32),
    )


def test_miou_is_the_mean_over_classes():
    # dog: 0.9, 0.7, 0.8 -> 80; cat: 0.2 -> 20. Over masks it would be 65.
    ious, classes = [0.9, 0.7, 0.2, 0.8], ["dog", "dog", "cat", "dog"]
    assert class_mean_iou(ious, classes) == pytest.approx(50)
    miou, interval, per_class = cell_scores(ious, classes, ["a", "b", "b", "c"], 200)
    assert miou == pytest.approx(50)
    assert per_class == pytest.approx({"cat": 20, "dog": 80})
    assert 20 <= interval[0] <= 50 <= interval[1] <= 90


def test_interval_of_equal_pictures_has_no_width():
    _, interval, _ = cell_scores([0.5] * 6, ["dog", "cat"] * 3, list("aabbcc"), 50)
    assert interval == pytest.approx([50, 50])


def test_miou_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no masks"):
        class_mean_iou([], [])


def test_normalised_by_each_words_maximum():
    maps = np.array([[[2.0, 1.0], [0.0, 0.5]], [[0.1, 0.2], [0.3, 0.4]], np.zeros((2, 2))])
    found = by_maximum(maps, (2, 2))
    assert found[0].tolist() == [[1.0, 0.5], [0.0, 0.25]]
    assert found[1] == pytest.approx(np.array([[0.25, 0.5], [0.75, 1.0]]))
    assert not found[2].any()
    masks = threshold_masks(maps, (2, 2), 0.4, by_maximum)
    assert masks[0].tolist() == [[True, True], [False, False]]
    alone = strongest(maps, (2, 2))
    assert alone[0].tolist() == [[1.0, 0.5], [0.0, 0.0]]  # (0,1) is shared by equals
    assert alone[1] == pytest.approx(np.array([[0.0, 0.5], [0.75, 1.0]]))


def test_daams_own_scale_is_bicubic_and_from_least_to_most():
    """Without enlarging: (x - 1) / (5 - 1). Enlarged: Keys' cubic of -0.75, edges repeated."""
    maps = np.array([[[5.0, 1.0], [2.0, 3.0]], np.full((2, 2), 7.0)])
    same = expand_as(maps, (2, 2))
    assert same[0] == pytest.approx(np.array([[1.0, 0.0], [0.25, 0.5]]))
    assert not same[1].any(), "a flat map has no range"

    def weight(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return 1.25 * x**3 - 2.25 * x**2 + 1
        return -0.75 * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0

    rows = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    centres = (np.arange(8) + 0.5) / 2 - 0.5
    by_row = np.array(
        [
            [
                sum(
                    weight(c - k) * rows[y, min(max(k, 0), 3)]
                    for k in range(int(np.floor(c)) - 1, int(np.floor(c)) + 3)
                )
                for c in centres
            ]
            for y in range(4)
        ]
    )
    grown = np.array(
        [
            [
                sum(
                    weight(c - k) * by_row[min(max(k, 0), 3), x]
                    for k in range(int(np.floor(c)) - 1, int(np.floor(c)) + 3)
                )
                for x in range(8)
            ]
            for c in centres
        ]
    )
    expected = (grown - grown.min()) / (grown.max() - grown.min())
    assert expand_as(rows[None], (8, 8))[0] == pytest.approx(expected, abs=1e-5)
    floor = expand_as(rows[None] + 100, (8, 8))[0]
    assert floor == pytest.approx(expected, abs=1e-3), "attention that is everywhere counts nothing"


def test_candidates_leave_the_ends_out():
    assert candidate_thresholds(4).tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_best_threshold_by_hand():
    maps = np.array([[[1.0, 0.6], [0.3, 0.1]], [[1.0, 1.0], [1.0, 1.0]]])
    truth = [[[1, 1], [0, 0]], [[1, 0], [0, 0]]]
    # the second word has no accepted mask and must not count
    sample = make_sample(["dog", "cat"], truth, present=[True, False])
    best, miou = best_threshold([sample], [maps], [0.05, 0.2, 0.5, 0.8])
    assert (best, miou) == (0.5, 100)
    # 0.2 takes three pixels for two: 2/3; 0.05 four: 1/2; 0.8 one: 1/2
    assert best_threshold([sample], [maps], [0.05, 0.2, 0.8])[1] == pytest.approx(200 / 3)


def test_table_of_protocol_one():
    vocabulary = load_vocabulary("voc-1")
    unseen, seen = vocabulary.unseen[0], vocabulary.seen[0]
    left, right = [[1, 0], [1, 0]], [[0, 1], [0, 1]]
    samples = [
        make_sample([seen, unseen], [left, right], key="sim-000001", cell="two_mixed"),
        make_sample([unseen], [left], key="sim-000002", cell="one_unseen"),
        make_sample([seen, unseen], [left, right], [True, False], "sim-000003", "two_mixed"),
    ]
    exact = [s.masks for s in samples]
    everywhere = [np.ones_like(s.masks) for s in samples]
    scores = score_rows(samples, {"ours": exact, "daam": everywhere}, vocabulary)
    assert scores.seen.tolist() == [True, False, False, True]
    table = protocol_one(scores, ["ours", "daam"], 20)
    assert table["ours"] == {"two_mixed": 100, "one_unseen": 100}
    assert table["daam"] == {"two_mixed": 50, "one_unseen": 50}
    assert table["pictures"] == {"two_mixed": 2, "one_unseen": 1}
    assert table["masks"] == {"two_mixed": 3, "one_unseen": 1}
    assert table["per_class"]["daam"]["two_mixed"] == {seen: 50, unseen: 50}
    assert table["intervals"]["daam"]["one_unseen"] == [50, 50]
    assert isinstance(scores, pd.DataFrame) and list(scores.iou_ours) == [1, 1, 1, 1]


def test_a_mask_of_an_unseen_class_never_teaches():
    sample = make_sample(["dog", "sheep"], np.ones((2, 2, 2)), present=[False, True])
    refuse_unseen([sample], {"sheep"})
    with pytest.raises(ValueError, match="dog"):
        refuse_unseen([make_sample(["dog", "sheep"], np.ones((2, 2, 2)))], {"sheep"})
