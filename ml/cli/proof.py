"""What a proof run is judged by: the paper's Protocol I and tolerances stated before any run.

Not here: the run (`ml.cli.prove`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ml.words.cells import CELLS

PAPER: dict[str, dict[str, tuple[float, float, float, float, float]]] = {
    "voc-1": {
        "ours": (90.16, 83.19, 78.93, 66.07, 57.93),
        "daam": (61.66, 75.63, 46.74, 51.31, 69.94),
    },
    "voc-2": {
        "ours": (90.08, 86.19, 78.68, 67.10, 47.21),
        "daam": (65.75, 59.25, 49.08, 47.98, 41.50),
    },
    "voc-3": {
        "ours": (90.67, 79.86, 79.68, 70.42, 62.07),
        "daam": (67.11, 53.82, 48.80, 48.28, 41.41),
    },
}
"""arXiv 2301.05221, Table 1, PASCAL-sim, mIoU in percent by split, in the order of `CELLS`."""

TOLERANCE = dict(zip(CELLS, (10.0, 15.0, 15.0, 15.0, 20.0), strict=True))
"""Points that a cell of ours may lie below the paper's. A run of hundreds of pictures has no right
to the paper's digits: the one other implementation that is known lies 10 to 17 points below."""
DAAM_TOLERANCE = 15.0
"""Points that DAAM may lie off the paper's, either way: it needs no training, so that it tells
whether the pictures and the detector's truth are like the paper's."""


@dataclass(frozen=True)
class Judgement:
    """One cell of one method beside the paper's."""

    method: str  # ours, daam
    cell: str
    paper: float  # mIoU, percent
    low: float  # what it must reach, percent
    high: float  # what it must not exceed, percent
    score: float | None  # None: no mask was accepted in this cell
    interval: tuple[float, float] | None  # 95 %, percent
    verdict: str  # "within", "outside", "undecided": the interval reaches over a bound


def judge(split: str, facts: Mapping[str, Any]) -> list[Judgement]:
    """Every cell of both methods. split: a key of PAPER; facts: of the stage `grounding_scores`."""
    return [
        _judged(method, cell, paper, facts)
        for method, row in PAPER[split].items()
        for cell, paper in zip(CELLS, row, strict=True)
    ]


def _judged(method: str, cell: str, paper: float, facts: Mapping[str, Any]) -> Judgement:
    low = paper - (TOLERANCE[cell] if method == "ours" else DAAM_TOLERANCE)
    high = 100.0 if method == "ours" else paper + DAAM_TOLERANCE
    score = facts[method].get(cell)
    found = facts["intervals"][method].get(cell)
    if score is None or found is None:
        return Judgement(method, cell, paper, low, high, score, None, "undecided")
    first, last = found
    if low <= score <= high:
        verdict = "within" if low <= first and last <= high else "undecided"
    else:
        verdict = "undecided" if last >= low and first <= high else "outside"
    return Judgement(method, cell, paper, low, high, score, (first, last), verdict)


def overall(judgements: list[Judgement]) -> str:
    """ "reproduced": every cell of ours is within its bounds; "not reproduced": one is outside;
    else "undecided": more pictures would tell. DAAM's cells are shown, and decide nothing."""
    ours = {each.verdict for each in judgements if each.method == "ours"}
    if "outside" in ours:
        return "not reproduced"
    return "undecided" if "undecided" in ours else "reproduced"
