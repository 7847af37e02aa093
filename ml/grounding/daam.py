"""The DAAM baseline: a word's attention map, divided by its maximum, enlarged, thresholded.

The maps are those of the sampling run that made the picture, summed over all of its steps
(`ml.diffusion.sampling`); the threshold is chosen on seen training pictures.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from ml.grounding.samples import Sample
from ml.grounding.scores import class_mean_iou
from ml.metrics import binary_iou


def normalised_maps(
    maps: np.ndarray, size: tuple[int, int], exclusive: bool = False
) -> np.ndarray:
    """Maps float >= 0 (n,h,w) to float32 (n,*size) in 0..1: each by its own maximum, bilinear.

    exclusive: a pixel keeps its strongest word alone, the others become 0. A map of zeros stays
    zero. Evidence averaged over timesteps may be scored in the same way.
    """
    maps = np.asarray(maps, np.float32)
    maps = maps / np.maximum(maps.max((-2, -1), keepdims=True, initial=0), 1e-12)
    enlarged = F.interpolate(torch.from_numpy(maps)[None], size=size, mode="bilinear",
                             align_corners=False)[0].numpy()
    return np.where(enlarged == enlarged.max(0), enlarged, 0) if exclusive else enlarged


def threshold_masks(
    maps: np.ndarray, size: tuple[int, int], threshold: float, exclusive: bool = False
) -> np.ndarray:
    """Masks bool (n,*size): where the normalised map is above the threshold."""
    return normalised_maps(maps, size, exclusive) > threshold


def candidate_thresholds(count: int) -> np.ndarray:
    """`count` thresholds evenly within 0..1, both ends left out."""
    return np.linspace(0, 1, count + 2)[1:-1]


def best_threshold(
    samples: Sequence[Sample], maps: Sequence[np.ndarray], candidates: Sequence[float],
    exclusive: bool = False,
) -> tuple[float, float]:
    """The candidate with the best mIoU on accepted masks, and that mIoU in percent.

    maps: (n_i,h,w) of each sample. The lowest wins a tie. Raises ValueError for no candidate.
    """
    if not len(candidates):
        raise ValueError("no candidate threshold; set benchmark.daam_thresholds to 1 or more")
    ious: list[list[float]] = [[] for _ in candidates]
    classes: list[str] = []
    for sample, own in zip(tqdm(samples, desc="threshold"), maps, strict=True):
        enlarged, masks = normalised_maps(own, sample.size, exclusive), sample.masks
        for i in np.flatnonzero(sample.present):
            classes.append(sample.entities[i])
            for scores, candidate in zip(ious, candidates, strict=True):
                scores.append(binary_iou(enlarged[i] > candidate, masks[i]))
    miou = [class_mean_iou(scores, classes) for scores in ious]
    best = int(np.argmax(miou))
    return float(candidates[best]), miou[best]
