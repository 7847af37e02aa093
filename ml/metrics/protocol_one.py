"""Protocol I's measure: intersection over union of masks, averaged over classes, in percent.

mIoU here is the mean over classes of the mean IoU of that class's masks; the paper averages over
classes too. Not here: confusion matrices of label maps (`ml.metrics.iou`).
"""

from collections.abc import Sequence

import numpy as np

from ml.metrics.bootstrap import bootstrap_interval
from ml.metrics.iou import Counts, Values, nanmean


def iou_counts(
    ious: Sequence[float], classes: Sequence[str], keys: Sequence[str]
) -> tuple[Values, list[str]]:
    """Summed IoU and number of masks by picture and class: float64 (pictures, 2, C).

    ious: 0..1, one a mask, with its class and the key of its picture. Also returns the names of
    the pictures' classes, ascending; pictures are in ascending order of their keys. Raises
    ValueError for no mask.
    """
    if not len(ious):
        raise ValueError(
            "mIoU of no masks: expected at least one accepted mask; look at the "
            "reasons of the rejected triplets"
        )
    names, label = np.unique(np.asarray(classes), return_inverse=True)
    pictures, picture = np.unique(np.asarray(keys), return_inverse=True)
    counts = np.zeros((len(pictures), 2, len(names)))
    np.add.at(counts[:, 0], (picture, label), np.asarray(ious, np.float64))
    np.add.at(counts[:, 1], (picture, label), 1)
    return counts, [str(name) for name in names]


def percent_per_class(counts: Counts) -> Values:
    """Summed counts (..., 2, C) to each class's mean IoU in percent (..., C); nan without masks."""
    total, masks = counts[..., 0, :], counts[..., 1, :]
    means: Values = np.divide(total, masks, out=np.full(total.shape, np.nan), where=masks > 0)
    return 100 * means


def percent(counts: Counts) -> Values:
    """Summed counts (..., 2, C) to mIoU in percent (...), a statistic for `ml.metrics.iou`."""
    return nanmean(percent_per_class(counts))


def class_mean_iou(ious: Sequence[float], classes: Sequence[str]) -> float:
    """mIoU in percent. Raises ValueError for no mask."""
    counts, _ = iou_counts(ious, classes, ["all"] * len(ious))
    return float(percent(counts.sum(0)))


def cell_scores(
    ious: Sequence[float], classes: Sequence[str], keys: Sequence[str], resamples: int
) -> tuple[float, list[float], dict[str, float]]:
    """mIoU, its 95 % bootstrap interval over pictures, and each class's mean IoU, in percent."""
    counts, names = iou_counts(ious, classes, keys)
    total = counts.sum(0)
    per_class = dict(zip(names, percent_per_class(total).tolist(), strict=True))
    interval = bootstrap_interval(percent, counts, resamples, seed=0)
    return float(percent(total)), list(interval), per_class
