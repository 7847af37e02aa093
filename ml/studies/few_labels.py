"""Study 8, few labels: unseen words taught by one, five or twenty labelled pictures each.

The module that is taught is that of `make run` (profile micro; of the quick size ci), whose stages
are run where they are not finished. Labelled and judged pictures are drawn scenes with exact masks.
"""

import pandas as pd

from ml.grounding.learning import (
    BATCH,
    MODULE,
    MODULE_STEPS,
    QUERY,
    QUERY_STEPS,
    WAYS,
)
from ml.pipeline.runner import run_stage
from ml.settings.profile import load_params
from ml.studies.blocks import Block, Plot, Row, Table, Text
from ml.studies.cell_scores import CELL_NAMES, cells, cells_apart, counted
from ml.studies.few_labels_lessons import NONE, PROFILES, raw, vocabulary
from ml.studies.records import NOISED
from ml.studies.scores import mean_iou
from ml.studies.study_run import StudyRun

TITLE = "Few labels: a word taught by one, five or twenty pictures"
QUESTION = (
    "What are a few labelled pictures of an unseen word worth, when its text query alone is "
    "fitted to them, or the module trained on, and what does it cost the other words?"
)
STAGES = ("prompts", "images", "masks", "triplets", "grounding_model")
"""What the taught module is made of."""


def make(run: StudyRun, only: str | None = None) -> None:
    """All rows: they share the pictures, and each is made in seconds."""
    params = load_params(PROFILES[run.size.name])
    for name in STAGES:
        run_stage(name, params, run.root)
    raw(run)


def blocks(run: StudyRun) -> list[Block]:
    rows, n = raw(run), run.params.benchmark.bootstrap
    rows = rows[(rows.judge == "truth") & (rows.source == NOISED)]
    before = rows[rows.pictures == 0]
    labels = {(way, count): _label(way, count) for way, count in _pairs(rows)}
    scored = [
        Row(label, cells(_of(rows, *pair), n))
        for pair, label in [((NONE, 0), NONE), *labels.items()]
    ]
    gained = [
        Row(f"{label}: gained", cells_apart(_of(rows, *pair), before, n))
        for pair, label in labels.items()
    ]
    curve = {
        way: [_point(rows, own, count) for own, count in [(NONE, 0), *labels] if own in (NONE, way)]
        for way in WAYS
    }
    unseen = ", ".join(vocabulary().unseen)
    return [
        Table(
            "After so many labelled pictures of each unseen word",
            CELL_NAMES,
            scored,
            f"Exact truth on drawn scenes that were never shown: {counted(before)}. Taught are "
            f"{unseen}; every second labelled picture shows two of them, both labelled.",
        ),
        Table(
            "Gained over no labelled picture (points, of the same scenes)",
            CELL_NAMES,
            gained,
            "In the cells of seen words alone, below 0 is what was forgotten. A learned query "
            "changes no mask of a picture that none of the taught words is asked of.",
        ),
        Plot("Two unseen words, by labelled pictures of each", "pictures", "mIoU, %", curve),
        Text(
            "The taught module is the one of `make run` (split 1, one training); ± is over three "
            f"choices of labelled pictures, with the most a word over seeds alone: all that there "
            "are are taken each time. Every second picture shows another of the words too, which "
            "has its mask then, so that a word has more masks than are named: 5 to 9 for 5, 30 for "
            f"20. {QUERY_STEPS} steps for a query; for "
            f"the module {MODULE_STEPS} and one more a labelled picture; {BATCH} pictures each. "
            "`python -m ml teach` does the same with pictures of your own."
        ),
    ]


def _pairs(rows: pd.DataFrame) -> list[tuple[str, int]]:
    """(way, labelled pictures a word) of all lessons."""
    return [(way, int(n)) for n in sorted(set(rows.pictures) - {0}) for way in WAYS]


def _label(way: str, count: int) -> str:
    what = {QUERY: "the word's query alone", MODULE: "the module"}[way]
    return f"{count} picture{'s' * (count > 1)} a word: {what}"


def _of(rows: pd.DataFrame, way: str, count: int) -> pd.DataFrame:
    return rows[(rows.method == way) & (rows.pictures == count)]


def _point(rows: pd.DataFrame, way: str, count: int) -> tuple[float, float, float]:
    own = _of(rows, way, count)
    cell = mean_iou(own[own.cell == "two_unseen"], 10)
    return float(count), cell.value, cell.spread or 0.0
