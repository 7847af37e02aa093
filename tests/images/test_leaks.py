"""Copies of benchmark pictures among training pictures are found, and nothing else is."""

import numpy as np
import pytest

from ml.drawn_world.benchmark import benchmark_scenes
from ml.drawn_world.world import draw_scene, scene_seed
from ml.images.leaks import find_overlap, small, thumbnails


def test_overlap_finds_copies_and_nothing_else():
    frozen = [scene.image for scene in benchmark_scenes()]
    benchmark = thumbnails(frozen)
    fresh = [draw_scene(scene_seed("test", index)).image for index in range(500)]
    assert find_overlap(fresh, benchmark) == []
    noise = np.random.default_rng(0).normal(0, 4, frozen[7].shape)
    altered = np.clip(frozen[7] + noise, 0, 255).astype(np.uint8)
    brighter = np.clip(frozen[201].astype(int) + 3, 0, 255).astype(np.uint8)
    planted = [*fresh[:10], frozen[3], *fresh[10:20], altered, brighter]
    assert find_overlap(planted, benchmark) == [10, 21, 22]
    with pytest.raises(ValueError, match="expected"):
        find_overlap([np.zeros((32, 32, 3), np.uint8)], benchmark)


def test_pictures_of_other_sizes_are_compared_at_one():
    """Block means by hand; a picture of the compared size is handed back as it is."""
    noise = np.random.default_rng(0).integers(0, 256, (128, 192, 3)).astype(np.uint8)
    means = noise.reshape(64, 2, 64, 3, 3).mean((1, 3))
    shrunk = small(noise)
    assert shrunk.shape == (64, 64, 3) and np.abs(shrunk - means).max() <= 1
    assert small(shrunk) is shrunk
    assert find_overlap([shrunk], thumbnails([small(noise)])) == [0]


def test_a_thumbnail_is_the_mean_of_blocks_and_without_a_benchmark_nothing_is_a_copy():
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    (found,) = thumbnails([noise])
    assert found.tolist() == noise.reshape(16, 4, 16, 4, 3).mean((1, 3)).ravel().tolist()
    assert find_overlap([noise], thumbnails([])) == []
    both = thumbnails([noise], mirrored=True)
    assert both.tolist() == thumbnails([noise, noise[:, ::-1]]).tolist()
