"""Study 7, words that are not there: false masks, what they cost, and which score tells of them.

Here: the figures. Not here: what is asked and answered (`absent_rows`).
"""

import numpy as np
import pandas as pd

from ml.grounding.presence import MIN_PRESENCE
from ml.studies.absent_methods import CANDIDATES, METHODS
from ml.studies.absent_questions import ABSENT
from ml.studies.absent_rows import MASK_SHARE, make_tables, tables
from ml.studies.blocks import Block, Cell, Plot, Row, Table, Text
from ml.studies.records import GENERATED, NOISED
from ml.studies.scores import figure, mean_iou, ratio, sums
from ml.studies.study_run import StudyRun

TITLE = "Words that are not there"
QUESTION = (
    "Asked for words that a picture does not show along with those that it does: how often "
    "does an absent word get a mask, and what does that cost the words that are there?"
)

SOURCES = {
    GENERATED: "generated pictures, judged by the detector",
    NOISED: "drawn scenes, exact truth",
}


def make(run: StudyRun, only: str | None = None) -> None:
    """All raw tables, whatever row is asked for: the methods share nearly all of their work."""
    make_tables(run)


def blocks(run: StudyRun) -> list[Block]:
    masks, scores = tables(run)
    resamples = run.params.benchmark.bootstrap
    made: list[Block] = [
        Text(
            f"A word counts as answered when its mask takes at least {100 * MASK_SHARE:g} % of the "
            "picture. Each picture is asked for its own words and for 1 to 5 others of the 20 "
            "classes, in an order by chance; no list is longer than the text encoder reads: the "
            'longest leave out "a photograph of", and have two words of two parts at most. The '
            f"presence score's threshold is {MIN_PRESENCE:g}, chosen on other pictures."
        )
    ]
    for source, title in SOURCES.items():
        own = masks[masks.source == source]
        present = _present(own, title, resamples)
        made += [
            _false_masks(own, title, resamples),
            _areas(own, title, resamples),
            present,
            Text(cost(present)),
            _plot(own, title),
        ]
    return [*made, separation(scores, resamples)]


def _false_masks(masks: pd.DataFrame, title: str, resamples: int) -> Table:
    return _table(
        f"Absent words that get a mask, {title} (%)",
        masks,
        ABSENT[1:],
        lambda rows: figure([share_counts(rows)], ratio, resamples),
    )


def _areas(masks: pd.DataFrame, title: str, resamples: int) -> Table:
    return _table(
        f"Mean area of those masks, {title} (% of the picture)",
        masks,
        ABSENT[1:],
        lambda rows: figure([area_counts(rows)], ratio, resamples),
        "No figure where a seed gave no absent word a mask.",
        masked=True,
    )


def _present(masks: pd.DataFrame, title: str, resamples: int) -> Table:
    return _table(
        f"mIoU of the words that are there, {title} (%)",
        masks,
        ABSENT,
        lambda rows: mean_iou(rows, resamples),
        there=True,
    )


def cost(present: Table) -> str:
    """What the most absent words cost those that are there, method by method, in words."""
    most = str(max(ABSENT))
    parts = [
        f"{row.label} {row.cells['0'].value - row.cells[most].value:.1f}"
        for row in present.rows
        if {"0", most} <= set(row.cells)
    ]
    return (
        f"Points of mIoU that {most} absent words asked along cost those that are there: "
        f"{', '.join(parts)}. Words that share each pixel take it from one another, so that "
        "our module needs the presence score for long lists."
    )


def _table(
    title, masks, counts, cell, note: str = "", there: bool = False, masked: bool = False
) -> Table:
    rows = []
    for method in METHODS:
        own = masks[(masks.method == method) & (masks.there == there)]
        parts = {n: own[own.absent == n] for n in counts}
        rows.append(
            Row(
                method,
                {
                    str(n): cell(part)
                    for n, part in parts.items()
                    if not masked or every_seed_has_masks(part)
                },
            )
        )
    columns = {str(n): f"{n} absent" if n else "none" for n in counts}
    return Table(title, columns, rows, note)


def _plot(masks: pd.DataFrame, title: str) -> Plot:
    series = {}
    for method in METHODS:
        own = masks[(masks.method == method) & ~masks.there.astype(bool)]
        cells = [(n, figure([share_counts(own[own.absent == n])], ratio, 2)) for n in ABSENT[1:]]
        series[method] = [(float(n), c.value, c.spread or 0.0) for n, c in cells]
    return Plot(
        f"False masks, {title}", "absent words asked along", "absent words with a mask (%)", series
    )


def separation(scores: pd.DataFrame, resamples: int) -> Table:
    """AUROC in percent of every candidate score, words that are there against absent ones."""
    columns = {
        f"{source}-{n}": f"{title}, {n} absent"
        for source, title in ((GENERATED, "generated"), (NOISED, "drawn"))
        for n in (1, 5)
    }
    rows = []
    for candidate in CANDIDATES:
        own, cells = scores[scores.method == candidate], {}
        for source in SOURCES:
            for n in (1, 5):
                part = own[(own.source == source) & (own.absent == n)]
                if len(part):
                    cells[f"{source}-{n}"] = auroc_cell(part, resamples)
        rows.append(Row(candidate, cells))
    return Table(
        "How well a score tells words that are there from absent ones (AUROC, %)",
        columns,
        rows,
        "50 is chance: the share of pairs of a word that is there and an absent one, of "
        "any two pictures of a source, in which the former's score is the higher.",
    )


def auroc_cell(rows: pd.DataFrame, resamples: int) -> Cell:
    """rows: value, there, key, seed of one candidate and source."""
    values, place = np.unique(rows.value.to_numpy(), return_inverse=True)
    keys, picture = np.unique(rows.key.to_numpy(), return_inverse=True)
    seeds, seed = np.unique(rows.seed.to_numpy(), return_inverse=True)
    counts = np.zeros((len(seeds), len(keys), 2, len(values)))
    np.add.at(counts, (seed, picture, rows.there.to_numpy(int), place), 1)
    return figure([counts], auroc, resamples)


def auroc(counts: np.ndarray) -> np.ndarray:
    """AUROC in percent of counts (...,2,V) by ascending value, absent first: the share of pairs
    (there, absent) in which the first has the higher value, equal ones half (Mann-Whitney)."""
    absent, there = counts[..., 0, :], counts[..., 1, :]
    below = absent.cumsum(-1) - absent / 2
    pairs = absent.sum(-1) * there.sum(-1)
    return 100 * np.divide(
        (there * below).sum(-1), pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0
    )


def share_counts(rows: pd.DataFrame) -> np.ndarray:
    """(seeds,pictures,2): absent words with a mask, and absent words."""
    return sums(rows, rows.area >= MASK_SHARE, np.ones(len(rows)))


def area_counts(rows: pd.DataFrame) -> np.ndarray:
    """(seeds,pictures,2): area of the masks that count as one, and their number."""
    answered = (rows.area >= MASK_SHARE).to_numpy(float)
    return sums(rows, rows.area * answered, answered)


def every_seed_has_masks(rows: pd.DataFrame) -> bool:
    return bool((rows.area >= MASK_SHARE).groupby(rows.seed).any().all())
