"""The DAAM baseline: a word's attention map, enlarged and scaled by its own range, thresholded.

Other maps of words (contrast, OVAM's) are scored by the same thresholds and their own scales.

The maps are those of the sampling run that made the picture, summed over all of its steps
(`ml.diffusion.sampling`); the threshold is chosen on seen training pictures.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from ml.grounding.samples import Sample
from ml.metrics.iou import binary_iou
from ml.metrics.protocol_one import class_mean_iou

Scale = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
"""Maps (n,h,w) to float32 (n,*size) in 0..1."""


def expand_as(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """DAAM's own way (`expand_as` of its code): maps (n,h,w) to float32 (n,*size) in 0..1, bicubic,
    then each from its least value to its greatest. A map of one value becomes zeros."""
    enlarged = _enlarged(np.asarray(maps, np.float32), size, "bicubic")
    least: np.ndarray = enlarged.min((-2, -1), keepdims=True)
    most: np.ndarray = enlarged.max((-2, -1), keepdims=True)
    scaled: np.ndarray = (enlarged - least) / (most - least + 1e-8)
    return scaled


def by_maximum(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps float >= 0 (n,h,w) to float32 (n,*size) in 0..1: each by its own maximum, bilinear. A
    map of zeros stays zero."""
    maps = np.asarray(maps, np.float32)
    maps = maps / np.maximum(maps.max((-2, -1), keepdims=True, initial=0), 1e-12)
    return _enlarged(maps, size, "bilinear")


def strongest(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`by_maximum`, of which a pixel keeps its strongest word alone; the others become 0."""
    enlarged = by_maximum(maps, size)
    return np.where(enlarged == enlarged.max(0), enlarged, 0)


def _enlarged(maps: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    return F.interpolate(torch.from_numpy(maps)[None], size=size, mode=mode, align_corners=False)[
        0
    ].numpy()


def threshold_masks(
    maps: np.ndarray, size: tuple[int, int], threshold: float, scale: Scale = expand_as
) -> np.ndarray:
    """Masks bool (n,*size): where the scaled map is above the threshold."""
    return scale(maps, size) > threshold


def candidate_thresholds(count: int) -> np.ndarray:
    """`count` thresholds evenly within 0..1, both ends left out."""
    return np.linspace(0, 1, count + 2)[1:-1]


def best_threshold(
    samples: Iterable[Sample],
    maps: Iterable[np.ndarray],
    candidates: Sequence[float],
    scale: Scale = expand_as,
) -> tuple[float, float]:
    """The candidate with the best mIoU on accepted masks, and that mIoU in percent.

    samples, maps (n_i,h,w) of each: looked at once, side by side, and not kept. The lowest wins a
    tie. Raises ValueError for no candidate.
    """
    if not len(candidates):
        raise ValueError("no candidate threshold; set benchmark.daam_thresholds to 1 or more")
    ious = [array("d") for _ in candidates]
    classes: list[str] = []
    for sample, own in zip(tqdm(samples, desc="threshold"), maps, strict=True):
        enlarged, masks = scale(own, sample.size), sample.masks
        for i in np.flatnonzero(sample.present):
            classes.append(sample.entities[i])
            for scores, candidate in zip(ious, candidates, strict=True):
                scores.append(binary_iou(enlarged[i] > candidate, masks[i]))
    miou = [class_mean_iou(scores, classes) for scores in ious]
    best = int(np.argmax(miou))
    return float(candidates[best]), miou[best]
