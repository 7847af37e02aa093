"""The frozen benchmark: 400 drawn scenes that stand in for a real test set.

Here: its design and its digest. Not here: metrics, where the pictures lie on disk, or the search
for them among training pictures (`ml.images.leaks`).
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator

import numpy as np

from ml.drawn_world.world import CLASSES, Scene, draw_scene, scene_seed

BENCHMARK_SIZE = 400
BENCHMARK_SHA256 = "37ff8b2cbe5c9d71c703940922635179d18f5bfb013ca51bd5c284391e2983d3"
"""`benchmark_digest` of the 400 scenes as published figures were measured on them."""


def benchmark_classes(index: int) -> tuple[str, ...]:
    """The classes of the index-th benchmark scene, 0 to 399.

    0 to 199: one object, each class ten times. 200 to 399: two objects, each class twenty times:
    all 190 pairs once, the ten pairs of classes ten places apart twice.
    """
    if not 0 <= index < BENCHMARK_SIZE:
        raise IndexError(f"benchmark scene {index} does not exist: use 0 to {BENCHMARK_SIZE - 1}")
    n = len(CLASSES)
    first = index % n
    if index < BENCHMARK_SIZE // 2:
        return (CLASSES[first],)
    step = 1 + (index - BENCHMARK_SIZE // 2) // n
    return CLASSES[first], CLASSES[(first + step) % n]


def benchmark_scenes() -> Iterator[Scene]:
    """The 400 scenes in order, after checking that they are the published ones (under 1 s)."""
    scenes = [benchmark_scene(index) for index in range(BENCHMARK_SIZE)]
    check_benchmark(scenes)
    return iter(scenes)


@functools.cache
def benchmark_scene(index: int) -> Scene:
    """The index-th benchmark scene, drawn once a process: its arrays can't be written to."""
    scene = draw_scene(scene_seed("benchmark", index), classes=benchmark_classes(index))
    for array in (scene.image, scene.masks):
        array.setflags(write=False)
    return scene


def benchmark_digest(scenes: Iterable[Scene]) -> str:
    """SHA-256 over the pixels and the label maps, scene by scene."""
    digest = hashlib.sha256()
    for scene in scenes:
        digest.update(np.ascontiguousarray(scene.image).tobytes())
        digest.update(scene.label_map().tobytes())
    return digest.hexdigest()


def check_benchmark(scenes: Iterable[Scene]) -> None:
    """Raises RuntimeError unless the scenes are the published benchmark, bit for bit."""
    actual = benchmark_digest(scenes)
    if actual != BENCHMARK_SHA256:
        raise RuntimeError(
            f"the benchmark has changed: expected {BENCHMARK_SHA256}, drew {actual}. Install the "
            "pinned numpy and pillow, or undo the change to the drawing; if it was meant, set "
            "BENCHMARK_SHA256 and measure every published figure again"
        )
