"""Finds training pictures that are, or nearly are, benchmark pictures: distances of thumbnails."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.images.arrays import Picture

SIZE = 64
"""Side in pixels to which every picture is brought before it is compared. It is the side of a drawn
scene, so that those are compared as they are; another number would need another NEAR_DISTANCE."""
THUMB = 16
"""Side of the thumbnails by which two pictures are compared, in pixels."""
NEAR_DISTANCE = 5.0
"""Mean absolute difference of 16x16 thumbnails, in grey levels, under which two pictures are the
same: between the strongest alteration and the nearest pair of different scenes
(docs/ablations.md)."""


def small(image: np.ndarray) -> np.ndarray:
    """A picture uint8 (H,W,3) of any size as `find_overlap` compares it: uint8 (64,64,3)."""
    if image.shape[:2] == (SIZE, SIZE):
        return image
    return np.asarray(Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BOX))


def find_overlap(images: Iterable[Picture], benchmark_images: Iterable[Picture]) -> list[int]:
    """Which images are a benchmark picture, exactly or slightly altered.

    images, benchmark_images: uint8 (64,64,3) RGB each, as `small` gives them; at least one of the
    benchmark. Returns the positions in `images`, in order. A copy has distance 0, so exact
    duplicates need no check of their own. 1.2 ms an image. Raises ValueError for another shape.
    """
    benchmark = np.stack([_thumb(image) for image in benchmark_images])
    return [
        position
        for position, image in enumerate(images)
        if np.abs(benchmark - _thumb(image)).mean(1).min() < NEAR_DISTANCE
    ]


def _thumb(image: Picture) -> npt.NDArray[np.float32]:
    """float32 (768,), the 16x16 box-averaged picture, 0 to 255."""
    if image.shape != (SIZE, SIZE, 3):
        raise ValueError(f"picture of shape {image.shape}; expected {(SIZE, SIZE, 3)}: resize it")
    block = SIZE // THUMB
    blocks = image.astype(np.float32).reshape(THUMB, block, THUMB, block, 3)
    means: np.ndarray = blocks.mean((1, 3))
    return means.ravel()
