"""Parts of pictures that have another picture's proportions."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.images.arrays import Labels, Picture


def fullest_window(marked: npt.NDArray[np.bool_], size: Sequence[int]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest part of a picture with the proportions of `size`
    (H,W) that holds most of its marked pixels; of several such parts the one nearest its middle.

    marked: bool (H,W).
    """
    scale = min(has / wanted for has, wanted in zip(marked.shape, size, strict=True))
    high, wide = (
        min(has, max(1, round(wanted * scale)))
        for has, wanted in zip(marked.shape, size, strict=True)
    )
    top, left = (_offset(marked.sum(1 - axis), length) for axis, length in ((0, high), (1, wide)))
    return top, left, high, wide


def _offset(counts: npt.NDArray[np.int64], length: int) -> int:
    sums = np.concatenate([[0], np.cumsum(counts)])
    held = sums[length:] - sums[:-length]
    best = np.flatnonzero(held == held.max())
    middle = (len(counts) - length) / 2
    return int(best[np.abs(best - middle).argmin()])


def cut(
    image: Picture, label: Labels, size: Sequence[int], marked: npt.NDArray[np.bool_]
) -> tuple[Picture, Labels]:
    """A picture uint8 (h,w,3) and its label map uint8 (h,w) brought to a size (H,W): proportions
    stay, what does not fit is cut off (`fullest_window`), labels keep their values."""
    top, left, high, wide = fullest_window(marked, size)
    box, shape = (left, top, left + wide, top + high), (size[1], size[0])
    shown = Image.fromarray(image).crop(box)
    mapped = Image.fromarray(label).crop(box)
    if shown.size != shape:
        shown = shown.resize(shape, Image.Resampling.LANCZOS)
        mapped = mapped.resize(shape, Image.Resampling.NEAREST)
    return np.asarray(shown), np.asarray(mapped)
