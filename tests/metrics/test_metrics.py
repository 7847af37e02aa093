"""Scores against torchmetrics, hand-made values and resampling written out as a loop."""

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from ml.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from ml.metrics.iou import (
    binary_iou,
    confusion,
    confusions,
    harmonic_mean,
    iou_per_class,
    miou,
    nanmean,
)


def random_maps(seed: int, n_classes: int, pictures: int = 6, agree: float = 0.6):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes + 1, (pictures, 16, 16)).astype(np.uint8)
    noise = rng.integers(0, n_classes + 1, labels.shape).astype(np.uint8)
    preds = np.where(rng.random(labels.shape) < agree, labels, noise)
    labels[rng.random(labels.shape) < 0.1] = 255
    return preds, labels


def test_confusion_by_hand():
    label = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)
    pred = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
    counts = confusion(pred, label, 2)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert iou_per_class(counts) == pytest.approx([1 / 2, 1 / 3, 1 / 2])
    assert miou(counts, [1, 2]) == pytest.approx((1 / 3 + 1 / 2) / 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_iou_equals_torchmetrics(seed):
    preds, labels = random_maps(seed, 20)
    judge = MulticlassJaccardIndex(21, average="none", ignore_index=255)
    expected = judge(torch.from_numpy(preds).long(), torch.from_numpy(labels).long()).numpy()
    stack = confusions(preds, labels, 20)
    assert stack.shape == (6, 21, 21)
    np.testing.assert_allclose(iou_per_class(stack.sum(0)), expected, atol=1e-6)
    assert miou(stack.sum(0), range(1, 21)) == pytest.approx(expected[1:].mean(), abs=1e-6)


def test_absent_classes_are_nan_and_left_out():
    label, pred = np.array([[0, 1, 1, 1]]), np.array([[0, 1, 1, 0]])
    counts = confusion(pred, label, 3)
    assert np.isnan(iou_per_class(counts)[2:]).all()
    assert miou(counts, [1, 2, 3]) == pytest.approx(2 / 3)
    assert np.isnan(miou(counts, [2, 3]))


def test_class_only_predicted_counts_as_zero():
    counts = confusion(np.array([[2, 0]]), np.array([[0, 0]]), 2)
    assert iou_per_class(counts)[2] == 0


@pytest.mark.parametrize(
    ("pred", "label", "message"),
    [
        (np.zeros((2, 2)), np.zeros((2, 3)), "differ in shape"),
        (np.full((2, 2), 3), np.zeros((2, 2)), "prediction: expected labels 0..2"),
        (np.full((2, 2), 255), np.zeros((2, 2)), "prediction"),
        (np.zeros((2, 2)), np.full((2, 2), 9), "truth"),
    ],
)
def test_refused(pred, label, message):
    with pytest.raises(ValueError, match=message):
        confusion(pred, label, 2)


def test_harmonic_mean():
    # Model-C of the paper: 69.5 seen, 63.2 unseen, 66.2 harmonic.
    assert harmonic_mean(69.5, 63.2) == pytest.approx(66.2, abs=0.05)
    assert harmonic_mean(0.0, 0.0) == 0
    assert harmonic_mean(0.5, 0.0) == 0
    assert np.isnan(harmonic_mean(0.5, np.nan))


def test_binary_iou():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert np.isnan(binary_iou(a, b))
    a[:2], b[1:3] = True, True
    assert binary_iou(a, b) == pytest.approx(4 / 12)
    with pytest.raises(ValueError, match="bool masks"):
        binary_iou(a.astype(np.uint8), b)


def test_nanmean():
    values = np.array([[1.0, np.nan, 3.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(nanmean(values), [2.0, np.nan])


def test_bootstrap_against_a_plain_loop():
    """The matrix product stands for choosing pictures with replacement and scoring their sum."""
    preds, labels = random_maps(3, 4, pictures=30)
    stack = confusions(preds, labels, 4)
    low, high = bootstrap_interval(lambda c: miou(c, range(1, 5)), stack, 4000, 0)
    rng = np.random.default_rng(99)
    loop = [miou(stack[rng.integers(0, 30, 30)].sum(0), range(1, 5)) for _ in range(4000)]
    assert [low, high] == pytest.approx(np.percentile(loop, [2.5, 97.5]), abs=2e-3)
    assert low < miou(stack.sum(0), range(1, 5)) < high


def test_bootstrap_of_a_mean_has_its_known_width():
    """The mean of n coin-like values has standard error s / sqrt(n): 95 % is 1.96 of them."""
    rng = np.random.default_rng(0)
    values = rng.random(400)
    counts = np.stack([values, np.ones(400)], axis=1)
    low, high = bootstrap_interval(lambda c: c[..., 0] / c[..., 1], counts, 5000, 1)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)


def test_bootstrap_is_deterministic_and_refuses_nothing_to_draw_from():
    stack = confusions(*random_maps(4, 3), 3)
    statistic = lambda c: miou(c, [1, 2, 3])  # noqa: E731
    once = bootstrap_interval(statistic, stack, 50, 7)
    assert once == bootstrap_interval(statistic, stack, 50, 7)
    with pytest.raises(ValueError, match="at least 1"):
        bootstrap_interval(statistic, stack[:0], 50, 7)


def test_paired_bootstrap():
    preds, labels = random_maps(5, 4, pictures=40)
    a = confusions(preds, labels, 4)
    worse = np.where(np.random.default_rng(0).random(preds.shape) < 0.3, 0, preds)
    b = confusions(worse.astype(np.uint8), labels, 4)
    statistic = lambda c: miou(c, range(1, 5))  # noqa: E731
    difference, low, high = paired_bootstrap(statistic, a, b, 500, 0)
    assert difference == pytest.approx(miou(a.sum(0), range(1, 5)) - miou(b.sum(0), range(1, 5)))
    assert 0 < low < difference < high
    assert paired_bootstrap(statistic, a, a, 100, 0) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="same pictures"):
        paired_bootstrap(statistic, a, b[:-1], 100, 0)
