"""Bootstrap intervals of a score over pictures, and of the difference of two."""

import numpy as np

from ml.metrics.iou import Counts, Statistic, Values


def bootstrap_interval(
    statistic: Statistic, counts: Counts, n: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of a statistic of summed counts, pictures resampled n times.

    counts: (pictures, *rest), e.g. per-picture confusions; they are summed over the resampled
    pictures before `statistic` sees them. (nan, nan) when no resample has a score.
    """
    (resampled,) = _resample([counts], n, seed)
    return _interval(statistic(resampled))


def paired_bootstrap(
    statistic: Statistic, a: Counts, b: Counts, n: int, seed: int
) -> tuple[float, float, float]:
    """Difference statistic(a) - statistic(b) on the same pictures, and its 95 % interval.

    a, b: (pictures, *rest), row i of both from picture i; both are resampled alike, so that a
    picture that is hard for both does not widen the interval. Returns (difference, low, high).
    Raises ValueError when the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"paired counts differ in shape, {a.shape} and {b.shape}: "
            "give both for the same pictures in the same order"
        )
    resampled_a, resampled_b = _resample([a, b], n, seed)
    low, high = _interval(statistic(resampled_a) - statistic(resampled_b))
    return float(statistic(a.sum(0)) - statistic(b.sum(0))), low, high


def _resample(stacks: list[Counts], n: int, seed: int) -> list[Values]:
    """Sums over n resamples of the pictures, the same pictures for every stack: (n, *rest).

    How often each picture is drawn is multinomial, so a resample is one matrix product. Counts
    stay exact in float64 below 2^53.
    """
    pictures = len(stacks[0])
    if pictures == 0 or n < 1:
        raise ValueError(f"bootstrap of {pictures} pictures, {n} resamples: expected at least 1")
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=n).astype(np.float64)
    return [(drawn @ stack.reshape(pictures, -1)).reshape(n, *stack.shape[1:]) for stack in stacks]


def _interval(values: Values) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not values.size:
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
