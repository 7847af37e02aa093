"""Finds training pictures that are, or nearly are, benchmark pictures: distances of thumbnails."""

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.images.arrays import Picture

SIZE = 64
"""Side in pixels to which every picture is brought before it is compared. It is the side of a drawn
scene, so that those are compared as they are; another number would need another NEAR_DISTANCE."""
THUMB = 16
"""Side of the thumbnails by which two pictures are compared, in pixels."""
Thumbs: TypeAlias = npt.NDArray[np.float32]
"""float32 (n,768): 16x16 box-averaged pictures, 0 to 255."""
NEAR_DISTANCE = 5.0
"""Mean absolute difference of 16x16 thumbnails, in grey levels, under which two pictures are the
same: between the strongest alteration and the nearest pair of different scenes
(docs/ablations.md)."""


def small(image: np.ndarray) -> np.ndarray:
    """A picture uint8 (H,W,3) of any size as `find_overlap` compares it: uint8 (64,64,3)."""
    if image.shape[:2] == (SIZE, SIZE):
        return image
    return np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BOX))


def thumbnails(images: Iterable[Picture], *, mirrored: bool = False) -> Thumbs:
    """Of pictures uint8 (64,64,3) RGB, as `small` gives them; for `find_overlap` those of the
    benchmark, made once for however many pictures are compared. mirrored: of their mirror images
    too, after them. Raises ValueError for another shape."""
    thumbs = np.array([_thumb(image) for image in images], np.float32).reshape(-1, THUMB, THUMB, 3)
    if mirrored:
        thumbs = np.concatenate([thumbs, thumbs[:, :, ::-1]])
    return thumbs.reshape(-1, 3 * THUMB**2)


def find_overlap(images: Iterable[Picture], benchmark: Thumbs) -> list[int]:
    """Which images are a benchmark picture, exactly or slightly altered.

    images: uint8 (64,64,3) RGB each, as `small` gives them; benchmark: its `thumbnails`, none where
    there is no benchmark. Returns the positions in `images`, in order. A copy has distance 0, so
    exact duplicates need no check of their own. Raises ValueError for another shape.
    """
    if not len(benchmark):
        return []
    return [
        position
        for position, image in enumerate(images)
        if np.abs(benchmark - _thumb(image)).mean(1).min() < NEAR_DISTANCE
    ]


def _thumb(image: Picture) -> npt.NDArray[np.float32]:
    """float32 (768,), one of Thumbs."""
    if image.shape != (SIZE, SIZE, 3):
        raise ValueError(f"picture of shape {image.shape}; expected {(SIZE, SIZE, 3)}: resize it")
    block = SIZE // THUMB
    rows = image.reshape(THUMB, block, SIZE * 3).sum(1, dtype=np.float32)  # whole numbers: exact
    blocks: np.ndarray = rows.reshape(THUMB, THUMB, block, 3).sum(2) / block**2
    return blocks.ravel()
