"""Study 5: limits. Where the masks of two unseen words fall, and what improves them.

The paper's weakest cell is two unseen objects (55.7): a module that learned to find objects finds
both, and confuses them.
"""

import numpy as np
import pandas as pd

from ml.studies.blocks import Block, Cell, Row, Table, Text
from ml.studies.cell_scores import CELL_NAMES, cells, cells_apart
from ml.studies.protocol_one import make as make_protocol_one
from ml.studies.protocol_one import raw
from ml.studies.scores import figure, pictures_of, sums
from ml.studies.specs import Spec
from ml.studies.study_run import StudyRun
from ml.studies.trainings import done, rows_of, train_all
from ml.words.vocabulary import load_vocabulary

TITLE = "What limits it: two unseen objects"
QUESTION = (
    "When two words in one picture were both never trained on, is a mask wrong in shape, "
    "or on the wrong object? And is the default ahead of the paper's module and of DAAM?"
)
STEPS = {
    "the paper's module: text query": Spec(variant="paper"),
    "text query seeded by evidence": Spec(settles=False),
    "seeded, evidence between words: the default": Spec(),
}
"""What was added, one after the other."""
BASELINES = {"contrast alone, no training": "contrast", "DAAM at its best threshold": "daam"}
ALONE = "contrast alone"  # trained on nothing: no opponent
UNSEEN = ("one_unseen", "two_mixed", "two_unseen")
CONFUSED = {"the paper's module": "paper", "our default": "seeded"}
SWAPPED = {
    "two_unseen": "mIoU, two unseen",
    "swapped": "words on the other object, %",
    "spilled": "mask pixels on the other object, %",
}


def make(run: StudyRun, only: str | None = None) -> None:
    make_protocol_one(run)
    # The same weights as the default's, so only when those are there.
    train_all(run, [Spec(split, settles=False) for split in run.size.splits])


def _of(spec: Spec, split: str) -> Spec:
    return Spec(split, spec.variant, settles=spec.settles)


def blocks(run: StudyRun) -> list[Block]:
    n = run.params.benchmark.bootstrap
    rows = raw(run)
    rows = rows[(rows.source == "generated") & (rows.judge == "detector")]
    ahead = _ahead(rows, n)
    made: list[Block] = [_evidence(run, rows, n)]
    made += [
        Text(verdict(ahead)),
        Table(
            "Points ahead, paired on the same pictures",
            CELL_NAMES,
            ahead,
            "Mean over splits and seeds; an interval that holds 0 decides nothing.",
        ),
    ]
    for label, method in CONFUSED.items():
        for split in run.size.splits:
            made.append(
                confusion_table(
                    rows[(rows.method == method) & (rows.split == split)],
                    load_vocabulary(split).unseen,
                    f"{label}, {split}",
                )
            )
    return made


def _ahead(rows: pd.DataFrame, resamples: int) -> list[Row]:
    others = {
        "default - the paper's module": "paper",
        "default - the paper's module, our upsampling": "paper-upsampled",
        "default - DAAM, best threshold": "daam",
        "default - DAAM, threshold 0.4": "daam-0.4",
        f"default - {ALONE}": "contrast",
    }
    own = rows[rows.method == "seeded"]
    return [
        Row(label, cells_apart(own, rows[rows.method == method], resamples))
        for label, method in others.items()
    ]


def verdict(ahead: list[Row]) -> str:
    """Whether the default is ahead in every cell with an unseen word, cell by cell where not."""
    behind = [
        (row.label.removeprefix("default - "), CELL_NAMES[cell], row.cells[cell])
        for row in ahead
        if not row.label.endswith(ALONE)
        for cell in UNSEEN
        if cell in row.cells and row.cells[cell].value <= 0
    ]
    if not behind:
        return (
            "The default module is ahead of the paper's module and of DAAM in every cell with "
            "an unseen word, as the mean over splits and seeds."
        )
    listed = "; ".join(
        f"{name} by {-points.value:.1f} points in {cell}" + _tie(points)
        for name, cell, points in behind
    )
    return f"The default module is NOT ahead everywhere where a word is unseen: behind {listed}."


def _tie(points: Cell) -> str:
    """The sentence for a difference that is not significant: its interval contains 0."""
    if points.high is None or points.high < 0:
        return ""
    return f", which may be chance (95 % interval {points.low:.1f} to {points.high:.1f})"


def _evidence(run: StudyRun, rows: pd.DataFrame, resamples: int) -> Table:
    """Each addition: the cells, and how many words have their mask on the other object."""
    table = []
    parts = {
        label: pd.concat([rows_of(run, _of(spec, split)) for split in run.size.splits])
        for label, spec in STEPS.items()
        if all(done(run, _of(spec, split)) for split in run.size.splits)
    }
    parts |= {label: rows[rows.method == method] for label, method in BASELINES.items()}
    for label, own in parts.items():
        own = own[(own.source == "generated") & (own.judge == "detector")]
        both = own[own.cell == "two_unseen"]
        table.append(
            Row(
                label,
                cells(own, resamples)
                | {
                    "swapped": share(both, both.on_other > both.on_own, resamples),
                    "spilled": spilled(both, resamples),
                },
            )
        )
    return Table(
        "What was added, and what it is worth",
        CELL_NAMES | SWAPPED,
        table,
        "A word counts as on the other object when more of its mask's pixels lie there "
        "than on its own. The last columns are of pictures of two unseen words. Beside "
        "the query, the second row has another upsampling, normalisation, loss and "
        "optimiser than the paper's module.",
    )


def share(rows: pd.DataFrame, holds: pd.Series, resamples: int) -> Cell:
    """Percent of the words for which something holds, mean over splits and seeds."""
    return _quotient(rows, holds, np.ones(len(rows)), resamples)


def spilled(rows: pd.DataFrame, resamples: int) -> Cell:
    """Percent of the masks' pixels that lie on the other word's object."""
    return _quotient(rows, rows.on_other, rows.on_own + rows.on_other + rows.on_neither, resamples)


def _quotient(rows: pd.DataFrame, top, bottom, resamples: int) -> Cell:
    values = rows[["split", "seed", "key"]].assign(top=np.asarray(top), bottom=np.asarray(bottom))
    stacks = [sums(own, own.top, own.bottom) for _, own in values.groupby("split", sort=True)]
    return figure(
        stacks,
        lambda c: 100 * c[..., 0] / np.maximum(c[..., 1], 1e-9),
        resamples,
        keys=pictures_of(values),
    )


def confusion_table(rows: pd.DataFrame, unseen: tuple[str, ...], title: str) -> Table:
    """Where the masks of words fall, percent of their pixels, two unseen words a picture.

    Row: the word asked for; the column of its own class: on its own object; another's: on that
    object, in pictures of the two; background: on neither. Mean over seeds.
    """
    own = rows[rows.cell == "two_unseen"]
    total = (own.on_own + own.on_other + own.on_neither).clip(lower=1)
    own = own.assign(
        right=100 * own.on_own / total,
        wrong=100 * own.on_other / total,
        nothing=100 * own.on_neither / total,
    )
    names = sorted(unseen)
    table = []
    for name in names:
        mine = own[own.entity == name]
        found = {
            other: Cell(float(mine[mine.other == other].wrong.mean()))
            for other in names
            if other != name and (mine.other == other).any()
        }
        if len(mine):
            found |= {
                name: Cell(float(mine.right.mean())),
                "background": Cell(float(mine.nothing.mean())),
            }
        table.append(Row(f"{name} ({title})", found))
    return Table(
        f"Where masks fall: {title}",
        {n: n for n in names} | {"background": "neither"},
        table,
        "Percent of a mask's pixels. Rows are words asked for, columns objects.",
    )
