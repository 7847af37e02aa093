"""Scores of label maps and masks, and how sure they are.

Every score here is a fraction 0..1; stages multiply by 100 where they write percent. Intervals
resample whole pictures (the pixels of one picture are not independent of each other). Not here:
which pictures or classes are scored, which is a stage's business.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ml.images.arrays import Integers, Masks

Values: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.int64] | npt.NDArray[np.float64]
"""Whole numbers; float64 where a bootstrap has summed them."""
Statistic = Callable[[Counts], Values]
"""Takes summed counts (..., *rest) and gives scores (...): any number of resamples at once."""


def confusion(
    pred: Integers, label: Integers, n_classes: int, ignore: int = 255
) -> npt.NDArray[np.int64]:
    """Pixel counts int64 (n+1, n+1), rows truth, columns prediction, 0 is background.

    pred, label: integer arrays of one shape, values 0..n_classes; pixels where `label` is
    `ignore` are not counted. Raises ValueError for another shape or value, also for an ignored
    value in `pred`: a model must decide for every pixel.
    """
    pred, label = np.asarray(pred), np.asarray(label)
    if pred.shape != label.shape:
        raise ValueError(
            f"prediction {pred.shape} and truth {label.shape} differ in shape: "
            "resize the prediction to the picture first"
        )
    counted = label != ignore
    truth, predicted = label[counted].astype(np.int64), pred[counted].astype(np.int64)
    for name, values in (("truth", truth), ("prediction", predicted)):
        if values.size and not 0 <= values.min() <= values.max() <= n_classes:
            raise ValueError(
                f"{name}: expected labels 0..{n_classes}, got {values.min()}.."
                f"{values.max()}: was it made with another vocabulary?"
            )
    size = n_classes + 1
    return np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)


def confusions(
    preds: Sequence[Integers], labels: Sequence[Integers], n_classes: int, ignore: int = 255
) -> npt.NDArray[np.int64]:
    """One confusion a picture: int64 (pictures, n+1, n+1)."""
    pairs = zip(preds, labels, strict=True)
    stack = [confusion(pred, label, n_classes, ignore) for pred, label in pairs]
    return np.array(stack, np.int64).reshape(-1, n_classes + 1, n_classes + 1)


def iou_per_class(counts: Counts) -> Values:
    """Intersection over union of each label: confusions (..., n+1, n+1) -> float64 (..., n+1).

    nan for a label that is neither in the truth nor in the prediction.
    """
    hit = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    union = counts.sum(-1) + counts.sum(-2) - hit
    return _divide(hit, union)


def miou(counts: Counts, labels: Sequence[int]) -> Values:
    """Mean IoU over the given labels: confusions (..., n+1, n+1) -> float64 (...).

    Labels absent from both truth and prediction are left out of the mean; nan if all are.
    """
    return nanmean(iou_per_class(counts)[..., list(labels)])


def harmonic_mean(seen: npt.ArrayLike, unseen: npt.ArrayLike) -> Values:
    """2 s u / (s + u), 0 where both are 0; in the unit of its arguments."""
    seen, unseen = np.asarray(seen, np.float64), np.asarray(unseen, np.float64)
    return np.where(seen + unseen == 0, 0.0, _divide(2 * seen * unseen, seen + unseen))


def binary_iou(pred: Masks, true: Masks) -> float:
    """IoU of two masks bool (H,W); nan when both are empty. Raises ValueError for others."""
    pred, true = np.asarray(pred), np.asarray(true)
    if pred.dtype != bool or true.dtype != bool or pred.shape != true.shape:
        raise ValueError(
            f"expected two bool masks of one shape, got {pred.dtype} {pred.shape} "
            f"and {true.dtype} {true.shape}: threshold and resize them first"
        )
    union = int((pred | true).sum())
    return float((pred & true).sum() / union) if union else float("nan")


def nanmean(values: Values) -> Values:
    """Mean over the last axis without its nans; nan (and no warning) where all are nan."""
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0.0).sum(-1), known.sum(-1))


def _divide(top: npt.ArrayLike, bottom: npt.ArrayLike) -> Values:
    """top / bottom, nan where bottom is 0."""
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    quotient: Values = np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0)
    return quotient
