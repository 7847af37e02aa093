"""The promotion gate: whether a new model takes the champion's place, as a pure function.

Not here: files and the scores of particular models (stage `promotion`), the registry (orchestration
keeps its alias in step with the champion on record).
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from ml.metrics.bootstrap import paired_bootstrap
from ml.metrics.iou import Statistic

BOOTSTRAP_SEED = 0
BY_HAND = (
    "`python -m orchestration.mlflow.champion` moves the title by hand; without a registry, remove "
    "the champion on record"
)
JUDGE = "tick the report's audit sheet and read it with `python -m ml audit`"


@dataclass(frozen=True)
class Contender:
    """A model and its scores."""

    digest: str  # of the model's manifest
    score: float  # percent
    test_set: str  # digest of what it was scored on
    keys: tuple[str, ...]  # of the pictures, row for row
    counts: np.ndarray  # (pictures, *rest); the policy's statistic takes their sum over pictures


@dataclass(frozen=True)
class Policy:
    """What a candidate must reach."""

    floor: float  # percent; no model below it is promoted
    statistic: Statistic  # summed counts -> percent
    resamples: int  # of the bootstrap


@dataclass(frozen=True)
class Verdict:
    """What was decided, and why.

    promote: the candidate takes the champion's place. state: "promoted", "refused" or "kept" (it is
    the champion already). difference: candidate minus champion with its 95 % interval, in points of
    a percent; None where the two could not be compared.
    """

    promote: bool
    state: str
    reason: str
    difference: tuple[float, float, float] | None = None


def decide(
    candidate: Contender, champion: Contender | None, policy: Policy, former: Collection[str] = ()
) -> Verdict:
    """Applies the rules in order; the first that holds decides. former: digests of old champions.

    The two are compared only on the champion's own test set. A former champion is not promoted
    again: somebody replaced it by hand, for a reason. A candidate is a regression when its
    paired-bootstrap interval lies wholly below zero, so that one that is as good within the noise
    of the pictures may replace the champion. A number that is not finite never promotes.
    """
    if champion is not None and champion.digest == candidate.digest:
        return Verdict(False, "kept", "already champion")
    if candidate.digest in former:
        return Verdict(
            False, "refused", f"was champion before; only a new model is promoted. {BY_HAND}"
        )
    score, floor = candidate.score, policy.floor
    if not math.isfinite(score) or not score >= floor:
        return Verdict(False, "refused", f"{score:.1f} % does not reach the floor of {floor:.1f} %")
    reached = f"{score:.1f} % reaches the floor of {floor:.1f} %"
    if champion is None:
        return Verdict(True, "promoted", f"first champion: {reached}")
    if not comparable(candidate, champion):
        return Verdict(
            False,
            "refused",
            f"{reached}, but the champion's {champion.score:.1f} % "
            "were measured on another test set or with other words, so the two cannot "
            f"be compared. {BY_HAND}",
        )
    difference = paired_bootstrap(
        policy.statistic, candidate.counts, champion.counts, policy.resamples, BOOTSTRAP_SEED
    )
    points, low, high = difference
    comparison = (
        f"{points:+.1f} points against the champion's {champion.score:.1f} % (95 % interval "
        f"{low:+.1f} to {high:+.1f}, same {len(champion.keys)} pictures)"
    )
    if not all(map(math.isfinite, difference)):
        return Verdict(False, "refused", f"not comparable in numbers: {comparison}. {BY_HAND}")
    if high < 0:
        return Verdict(False, "refused", f"regression: {comparison}", difference)
    return Verdict(True, "promoted", f"{reached}; no regression: {comparison}", difference)


def audit(verdict: Verdict, judged: dict | None, minimum: float | None) -> Verdict:
    """The verdict, a promotion refused where people judged the labels too few or too bad.

    judged: the row over all classes of `ml.pipeline.audit.precision`, None where nothing was
    judged. minimum: percent that the lower bound of its interval must reach; None asks for nothing.
    """
    if minimum is None or not verdict.promote:
        return verdict
    asked = f"promotion.min_audited_precision asks for {minimum:.1f} %"
    if judged is None:
        return Verdict(
            False,
            "refused",
            f"nobody has judged a mask of the present synthetic set, and {asked}: {JUDGE}",
        )
    said = (
        f"{judged['right']} of {judged['judged']} judged masks of the synthetic set are right "
        f"({judged['precision']:.1f} %, 95 % interval {judged['low']:.1f} to "
        f"{judged['high']:.1f} %)"
    )
    if judged["low"] >= minimum:
        reason = f"{verdict.reason}; {said}"
        return Verdict(True, verdict.state, reason, verdict.difference)
    if judged["precision"] >= minimum:
        said += f": too few were judged to be sure of it, {asked} at the interval's lower end"
        return Verdict(False, "refused", f"{said}; {JUDGE}", verdict.difference)
    return Verdict(False, "refused", f"{said}, and {asked}", verdict.difference)


def comparable(one: Contender, other: Contender) -> bool:
    """Whether two models were scored on the same pictures with the same truth and classes."""
    return (
        one.test_set == other.test_set
        and one.keys == other.keys
        and one.counts.shape == other.counts.shape
    )
