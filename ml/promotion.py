"""The gate between a new model and the champion: a pure decision.

Not here: files, scores of particular models, the registry (orchestration keeps its alias in step
with the champion on record).
"""

import math
from dataclasses import dataclass

import numpy as np

from ml.metrics import Statistic, paired_bootstrap

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Contender:
    """A model and what it scored."""

    digest: str  # of the model's manifest
    score: float  # percent
    test_set: str  # digest of what it was scored on
    keys: tuple[str, ...]  # of the pictures, row for row
    counts: np.ndarray  # (pictures, *rest), what the policy's statistic takes summed


@dataclass(frozen=True)
class Policy:
    """What a candidate must reach."""

    floor: float  # percent; nothing below is promoted
    statistic: Statistic  # summed counts -> percent
    resamples: int


@dataclass(frozen=True)
class Verdict:
    """promote: the candidate takes the champion's place. state: promoted, refused or kept (it is
    the champion already). difference: candidate less champion with its 95 % interval, in points;
    None where the two could not be compared."""

    promote: bool
    state: str
    reason: str
    difference: tuple[float, float, float] | None = None


def decide(candidate: Contender, champion: Contender | None, policy: Policy) -> Verdict:
    """The rules in order; the first that holds decides.

    A regression is a paired-bootstrap interval that lies wholly below zero: a candidate that is
    as good within the pictures' noise may replace the champion.
    """
    if champion is not None and champion.digest == candidate.digest:
        return Verdict(False, "kept", "already champion")
    score, floor = candidate.score, policy.floor
    if math.isnan(score) or score < floor:
        return Verdict(False, "refused", f"{score:.1f} % is below the floor of {floor:.1f} %")
    reached = f"{score:.1f} % reaches the floor of {floor:.1f} %"
    if champion is None:
        return Verdict(True, "promoted", f"first champion: {reached}")
    if champion.test_set != candidate.test_set or champion.keys != candidate.keys:
        return Verdict(True, "promoted", f"{reached}; the champion's {champion.score:.1f} % were "
                       "measured on another test set, so the two cannot be compared and the floor "
                       "alone decides")
    difference = paired_bootstrap(policy.statistic, candidate.counts, champion.counts,
                                  policy.resamples, BOOTSTRAP_SEED)
    points, low, high = difference
    said = (f"{points:+.1f} points against the champion's {champion.score:.1f} % (95 % interval "
            f"{low:+.1f} to {high:+.1f}, same {len(champion.keys)} pictures)")
    if high < 0:
        return Verdict(False, "refused", f"regression: {said}", difference)
    return Verdict(True, "promoted", f"{reached}; no regression: {said}", difference)
