"""Do masks lie where their words' heat maps are hot? The heat maps (DAAM) are the diffusion model's
own, so they know nothing of the detector: where the two disagree, one of them is wrong."""

from collections.abc import Sequence

import numpy as np
from PIL import Image


def read_heat(data: bytes, shape: Sequence[int]) -> np.ndarray | None:
    """The heat maps float32 (n,h,w) of a row of `images`; None where the bytes are not that many
    finite numbers."""
    if len(shape) != 3 or len(data) != 2 * int(np.prod(shape)):
        return None
    heat = np.frombuffer(data, "<f2").reshape([int(side) for side in shape]).astype(np.float32)
    return heat if np.isfinite(heat).all() else None


def cover(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The share 0..1 of each cell of a grid (h,w) that a mask bool (H,W) covers: float64 (h,w)."""
    cells = Image.fromarray(mask.astype(np.uint8) * 255)
    shrunk = cells.resize((grid[1], grid[0]), Image.Resampling.BOX)
    return np.asarray(shrunk, np.float64) / 255


def inside_rank(heat: np.ndarray, covered: np.ndarray) -> float:
    """How likely a point in the mask is hotter than one outside it, 0..1; 0.5 is chance.

    heat, covered: float (h,w), the latter as `cover` gives it. 0.5 for a flat map, 0 for a mask
    that is empty or everything.
    """
    order = np.argsort(heat, axis=None, kind="stable")
    inside = covered.ravel()[order]
    outside = 1 - inside
    pairs = inside.sum() * outside.sum()
    if pairs <= 0:
        return 0.0
    if heat.max() <= heat.min():
        return 0.5
    return float((inside * (outside.cumsum() - outside / 2)).sum() / pairs)


def own_excess(heat: np.ndarray, covered: np.ndarray, own: int) -> float:
    """By how many standard deviations the own word's heat within a mask exceeds the hottest other
    word's. heat: float (n,h,w), n of 2 or more; covered: (h,w) of word number `own`."""
    flat = heat.reshape(len(heat), -1)
    scaled = (flat - flat.mean(1, keepdims=True)) / np.maximum(flat.std(1, keepdims=True), 1e-9)
    within = scaled @ covered.ravel() / max(covered.sum(), 1e-9)
    return float(within[own] - np.delete(within, own).max())
