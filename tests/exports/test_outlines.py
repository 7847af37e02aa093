"""A mask as one polygon, drawn again."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label

from ml.exports.outlines import outline, rings
from ml.exports.yolo_seg import drawn_again


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def again(mask: np.ndarray) -> np.ndarray:
    points, _ = outline(mask)
    return drawn_again(np.round(points / mask.shape[::-1], 6), mask.shape)


def blob(seed: int, smooth: float) -> np.ndarray:
    field = gaussian_filter(np.random.default_rng(seed).random((50, 70)), smooth)
    return field > np.quantile(field, 0.6)


@pytest.mark.parametrize("seed", range(12))
def test_one_part_comes_back_exactly_with_its_holes(seed):
    parts, count = label(blob(seed, 2 + seed / 4))
    sizes = [(parts == number).sum() for number in range(1, count + 1)]
    mask = parts == 1 + int(np.argmax(sizes))
    assert np.array_equal(again(mask), mask)


@pytest.mark.parametrize("seed", range(6))
def test_what_several_parts_lose_is_no_more_than_their_cuts(seed):
    mask = blob(seed, 3)
    parts, count = label(mask)
    found = again(mask)
    assert count > 1 and not (mask & ~found).any()  # nothing of it is lost
    assert iou(found, mask) > 0.9


def test_parts_are_joined_where_they_are_close():
    """Three squares in a row, the largest first: the far one is joined to its neighbour, and a
    level cut is a pixel wide."""
    mask = np.zeros((20, 60), bool)
    mask[2:18, 2:18], mask[8:12, 24:28], mask[4:16, 40:52] = True, True, True
    found = again(mask)
    assert (found & ~mask).sum() == (24 - 18) + (40 - 28)


def test_rings_are_of_parts_and_holes():
    mask = np.ones((9, 9), bool)
    mask[3:6, 3:6] = False
    mask[4, 4] = True
    found = again(mask)
    assert len(rings(mask)) == 3 and (found & ~mask).sum() == 1  # the cut to the island


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (2, 2)])
def test_the_whole_of_a_tiny_picture(shape):
    mask = np.ones(shape, bool)
    points, count = outline(mask)
    assert count == 1 and len(points) >= 4
    assert (points > 0).all() and (points < shape[::-1]).all()
    assert np.array_equal(again(mask), mask)
