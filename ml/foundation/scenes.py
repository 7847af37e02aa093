"""Drawn scenes as arrays for the trainers: rendered once by two processes, then read from a cache.

Not here: how a scene is drawn (`ml.drawn_world.world`), tensors and augmentation (`batches.py`),
labels beyond what a scene knows. The cache is scratch: delete it at any time and it is drawn again,
the same.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ml.drawn_world.placement import SIZE
from ml.drawn_world.shapes import MAIN_COLOURS
from ml.drawn_world.world import CLASSES, Scene, draw_scene, scene_seed
from ml.stopping import quiet_worker

CACHE = Path(".scratch/scenes")
CHUNK = 256
"""Scenes a cache file: 4 MiB, drawn in half a second, so that a stopped rendering loses little."""

NO_CLASS = 255
MAX_OBJECTS = 3
FINGERPRINT_SCENES = 64
"""Scenes whose pictures name the cache: 90 objects, so 4 or 5 of every class."""


@dataclass(frozen=True)
class SceneSet:
    """N scenes. Objects stand in caption order.

    images: uint8 (N,64,64,3) RGB.
    instances: uint8 (N,64,64); 0 background, k for the visible part of the k-th object, k = 1..3.
    classes: uint8 (N,3); index into world.CLASSES of each object, 255 where there is none.
    captions: N strings.
    """

    images: np.ndarray
    instances: np.ndarray
    classes: np.ndarray
    captions: list[str]

    def __post_init__(self) -> None:
        n = len(self.captions)
        shapes = (self.images.shape, self.instances.shape, self.classes.shape)
        expected = ((n, SIZE, SIZE, 3), (n, SIZE, SIZE), (n, MAX_OBJECTS))
        if shapes != expected:
            raise ValueError(
                f"images, instances and classes are {shapes}; expected {expected} for {n} captions"
            )

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, part: slice) -> "SceneSet":
        return SceneSet(
            self.images[part], self.instances[part], self.classes[part], self.captions[part]
        )

    def label_maps(self) -> np.ndarray:
        """uint8 (N,64,64): 0 background, i + 1 for CLASSES[i]."""
        labels = np.where(self.classes == NO_CLASS, 0, self.classes + 1).astype(np.uint8)
        table = np.concatenate((np.zeros((len(self), 1), np.uint8), labels), axis=1)
        flat = self.instances.reshape(len(self), -1)
        return np.take_along_axis(table, flat, axis=1).reshape(self.instances.shape)


def draw_one(purpose: str, index: int) -> Scene:
    """The index-th scene of a purpose; "same_class" has two objects of one class, in turn over the
    classes that have colours."""
    seed = scene_seed(purpose, index)
    if purpose != "same_class":
        return draw_scene(seed)
    return draw_scene(seed, classes=2 * [list(MAIN_COLOURS)[index % len(MAIN_COLOURS)]])


def fresh_scenes(count: int) -> list[Scene]:
    """Drawn scenes that nothing was trained on: the first seeds of the purpose "eval"."""
    return [draw_one("eval", index) for index in range(count)]


def draw_scenes(purpose: str, start: int, count: int) -> SceneSet:
    """Draw the scenes start .. start + count - 1 of a purpose in this process."""
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    instances = np.zeros((count, SIZE, SIZE), np.uint8)
    classes = np.full((count, MAX_OBJECTS), NO_CLASS, np.uint8)
    captions = []
    for row in range(count):
        scene = draw_one(purpose, start + row)
        images[row] = scene.image
        for k, (mask, name) in enumerate(zip(scene.masks, scene.classes, strict=True)):
            instances[row][mask] = k + 1
            classes[row, k] = CLASSES.index(name)
        captions.append(scene.caption)
    return SceneSet(images, instances, classes, captions)


def stream_scenes(
    purpose: str, count: int, *, start: int = 0, chunk: int = CHUNK, workers: int = 2
) -> Iterator[SceneSet]:
    """Draw scenes in order without keeping them: sets of `chunk` scenes, the last may be smaller.

    The next sets are drawn by `workers` processes while the caller works on the present one.
    """
    starts = range(start, start + count, chunk)
    sizes = [min(chunk, start + count - first) for first in starts]
    # Forked, not spawned: the workers need nothing but numpy and Pillow, and a spawned one would
    # import the caller's torch and diffusers first (8 s).
    with ProcessPoolExecutor(workers, get_context("fork"), quiet_worker) as pool:
        yield from pool.map(draw_scenes, [purpose] * len(sizes), starts, sizes)


def fingerprint(purpose: str) -> str:
    """12 hex digits that change when the drawing of a purpose's scenes does."""
    scenes = draw_scenes(purpose, 0, FINGERPRINT_SCENES)
    digest = hashlib.sha256("\n".join(scenes.captions).encode())
    for array in (scenes.images, scenes.instances, scenes.classes):
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]


def load_scenes(
    purpose: str, count: int, cache_dir: Path | str = CACHE, *, workers: int = 2
) -> SceneSet:
    """The first `count` scenes of a purpose, from the cache or drawn into it (1 s per 800 scenes).

    Asking for more than before draws the missing ones only.
    """
    folder = Path(cache_dir) / f"{purpose}-{fingerprint(purpose)}"
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, count, CHUNK)
    files = [folder / f"scenes-{start:07d}.npz" for start in starts]
    missing = [(s, f) for s, f in zip(starts, files, strict=True) if not f.exists()]
    if missing:
        with ProcessPoolExecutor(workers, get_context("fork"), quiet_worker) as pool:
            jobs = [pool.submit(_draw_file, purpose, start, file) for start, file in missing]
            for job in tqdm(jobs, desc=f"drawing {purpose}", unit="file", mininterval=5):
                job.result()
    parts = [_read(file) for file in files]
    images, instances, classes = (
        np.concatenate([part[i] for part in parts])[:count] for i in range(3)
    )
    captions = [caption for part in parts for caption in part[3]]
    return SceneSet(images, instances, classes, captions[:count])


def _draw_file(purpose: str, start: int, file: Path) -> None:
    scenes = draw_scenes(purpose, start, CHUNK)
    # Written under another name first: a reader never sees half a file.
    partial = file.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(
        partial,
        images=scenes.images,
        instances=scenes.instances,
        classes=scenes.classes,
        captions=np.array(scenes.captions),
    )
    os.replace(partial, file)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    with np.load(file, allow_pickle=False) as arrays:
        return (
            arrays["images"], arrays["instances"], arrays["classes"], arrays["captions"].tolist(),
        )  # fmt: skip
