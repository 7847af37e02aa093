"""Masks and label maps laid over a picture, in colours; VOC's palette.

A picture is uint8 (H,W,3) RGB, a label map uint8 (H,W) with 0 background and 255 ignored, masks
are bool (n,H,W).
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ml.images.arrays import Labels, Masks, Picture

Colours: TypeAlias = Sequence[Sequence[int]] | npt.NDArray[np.uint8]
"""One RGB triple a mask."""

IGNORED = 255


MASK_COLOURS = np.array(
    [(236, 0, 160), (0, 190, 255), (255, 200, 0), (60, 200, 60), (150, 80, 255)], np.uint8
)
"""Tints of the first, second, ... mask of a picture. VOC's first colours are too dark to see, and
red drowns in the drawn world's many red and orange objects."""


def voc_palette() -> npt.NDArray[np.uint8]:
    """PASCAL VOC's colour map, uint8 (256,3): the bits of a label, three at a time, become the
    high bits of red, green and blue."""
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            value = (labels >> (3 * bit + channel)) & 1
            palette[:, channel] |= (value << (7 - bit)).astype(np.uint8)
    return palette


PALETTE = voc_palette()


def overlay(
    image: Picture, masks: Masks, colours: Colours | None = None, alpha: float = 0.5
) -> Picture:
    """The picture with each mask tinted and outlined, uint8 (H,W,3).

    masks: bool (n,H,W), later ones on top. colours: n RGB triples; None takes MASK_COLOURS.
    """
    masks = np.asarray(masks, bool).reshape(-1, *image.shape[:2])
    if colours is None:
        colours = MASK_COLOURS[np.arange(len(masks)) % len(MASK_COLOURS)]
    painted = image.astype(np.float32)
    for mask, colour in zip(masks, np.asarray(colours, np.float32).reshape(-1, 3), strict=True):
        painted[mask] = (1 - alpha) * painted[mask] + alpha * colour
        painted[mask & ~inner(mask)] = colour
    rounded: Picture = painted.round().astype(np.uint8)
    return rounded


def inner(mask: Masks) -> Masks:
    """Pixels of a mask whose four neighbours belong to it; beyond the picture counts as inside."""
    wide = np.pad(mask, 1, constant_values=True)
    inner: Masks = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:] & mask
    return inner


def label_overlay(image: Picture, labels: Labels, alpha: float = 0.6) -> Picture:
    """The picture with a label map uint8 (H,W) laid over in VOC's colours; 255 is VOC's cream."""
    if labels.shape != image.shape[:2]:
        raise ValueError(f"label map: expected {image.shape[:2]}, got {labels.shape}")
    present = [label for label in np.unique(labels) if label]
    masks = np.array([labels == label for label in present]).reshape(-1, *labels.shape)
    return overlay(image, masks, PALETTE[present], alpha)
