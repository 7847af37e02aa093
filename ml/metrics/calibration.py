"""Whether probabilities mean what they say: reliability diagrams and expected calibration error.

Probabilities of a yes-or-no question are sorted into bins of equal width. A bin's confidence is
their mean, its accuracy the share of them whose answer was yes; a calibrated model has the two
equal. The expected calibration error (ECE) is the mean over all probabilities of the gap of their
bin: sum over bins of n_b / N * |accuracy_b - confidence_b|. Source: Guo, Pleiss, Sun, Weinberger,
"On Calibration of Modern Neural Networks", ICML 2017, section 2 (after Naeini, Cooper, Hauskrecht,
AAAI 2015), here of the probability of "yes", as for a mask's pixels, not of the likelier answer.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml.metrics.iou import Values

BINS = 15
"""As in Guo et al."""


@dataclass(frozen=True)
class Reliability:
    """Sums over probabilities in bins of equal width over 0..1; two of them can be added.

    count: how many. total: their sum. yes: how many of them were right. Arrays (bins,).
    """

    count: npt.NDArray[np.int64]
    total: Values
    yes: npt.NDArray[np.int64]

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.count + other.count, self.total + other.total, self.yes + other.yes)

    @property
    def confidence(self) -> Values:
        """Mean probability of each bin (bins,), nan where it is empty."""
        return _divide(self.total, self.count)

    @property
    def accuracy(self) -> Values:
        """Share of "yes" in each bin (bins,), nan where it is empty."""
        return _divide(self.yes, self.count)

    @property
    def error(self) -> float:
        """The expected calibration error, 0..1; nan for no probability."""
        number = int(self.count.sum())
        return float(np.abs(self.yes - self.total).sum() / number) if number else float("nan")


def no_reliability(bins: int = BINS) -> Reliability:
    """Of no probability at all: what sums begin with."""
    return Reliability(np.zeros(bins, np.int64), np.zeros(bins), np.zeros(bins, np.int64))


def reliability(
    probabilities: npt.ArrayLike, truth: npt.ArrayLike, bins: int = BINS
) -> Reliability:
    """Sorts probabilities (any shape, 0..1) into bins; truth: bool, of the same shape.

    A bin has its lower edge and not its upper one, the last has both. Raises ValueError for
    another shape, or a probability outside 0..1.
    """
    given, true = np.asarray(probabilities, np.float64).ravel(), np.asarray(truth)
    if true.dtype != bool or true.shape != np.shape(probabilities):
        raise ValueError(
            f"expected a bool for each of {np.shape(probabilities)} probabilities, got "
            f"{true.dtype} {true.shape}"
        )
    if not np.all((given >= 0) & (given <= 1)):  # a NaN is neither
        raise ValueError("expected probabilities from 0 to 1: take the softmax or sigmoid first")
    place = np.minimum((given * bins).astype(np.int64), bins - 1)
    return Reliability(
        np.bincount(place, minlength=bins),
        np.bincount(place, given, bins).astype(np.float64),
        np.bincount(place[true.ravel()], minlength=bins),
    )


def _divide(top: npt.NDArray[np.generic], count: npt.NDArray[np.int64]) -> Values:
    quotient: Values = np.divide(top, count, out=np.full(len(count), np.nan), where=count > 0)
    return quotient
