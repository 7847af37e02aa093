"""Drawn scenes as a user's own labelled pictures: exact masks, in the layout of a plain folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ml.drawn_world.world import Scene, draw_scene, scene_seed


def scenes_of(*shown: Sequence[str], start: int = 7000) -> list[Scene]:
    """A scene of each of these classes, from seeds that no data set has."""
    return [
        draw_scene(scene_seed("test", start + i), classes=list(classes))
        for i, classes in enumerate(shown)
    ]


def label_map(scene: Scene, classes: Sequence[str]) -> np.ndarray:
    """uint8 (64,64): 1 + the place of the class in `classes`; the visible masks, of which no two
    have a pixel in common."""
    label = np.zeros(scene.image.shape[:2], np.uint8)
    for name, mask in zip(scene.classes, scene.masks, strict=True):
        label[mask] = classes.index(name) + 1
    return label


def write_folder(
    root: Path,
    scenes: Sequence[Scene],
    classes: Sequence[str],
    labels: Sequence[np.ndarray] | None = None,
    images: Sequence[np.ndarray] | None = None,
) -> Path:
    """images/NN.png, masks/NN.png and classes.txt. labels, images: in place of the scenes' own."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    own = [scene.image for scene in scenes] if images is None else images
    maps = [label_map(scene, classes) for scene in scenes] if labels is None else labels
    for i, (image, label) in enumerate(zip(own, maps, strict=True)):
        Image.fromarray(image).save(root / "images" / f"{i:02d}.png")
        Image.fromarray(label).save(root / "masks" / f"{i:02d}.png")
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return root
