"""Tables and verdicts of the study `backbones` that hold both backbones against each other."""

import math

import pandas as pd
from scipy import stats

from ml.studies.backbone_rows import METHODS, labels_of
from ml.studies.blocks import Cell, Row, Table
from ml.studies.cell_scores import CELL_NAMES, cells, cells_apart
from ml.studies.prompt_sets import judged_prompts
from ml.studies.records import GENERATED
from ml.studies.study_run import StudyRun


def rows_from(rows: pd.DataFrame, source: str, split: str) -> pd.DataFrame:
    """Rows of a source by its judge, of a split or of all."""
    if rows.empty:
        return rows
    judge = "detector" if source == GENERATED else "truth"
    own = rows[(rows.source == source) & (rows.judge == judge)]
    return own if split == "all" else own[own.split == split]


def cell_table(run: StudyRun, title: str, rows: dict[str, pd.DataFrame], note: str) -> Table:
    table = [
        Row(label, cells(own[own.method == method], run.params.benchmark.bootstrap))
        for name, own in rows.items()
        for label, method in labels_of(name).items()
        if (own.method == method).any()
    ]
    return Table(title, CELL_NAMES, table, note)


def pictures_label(name: str) -> str:
    """Of a backbone's row in `drawn_well`."""
    return f"pictures of the {name}"


def drawn_well(run: StudyRun, rows: dict[str, pd.DataFrame]) -> Table:
    """Of the judged prompts the share of whose words all have an accepted mask."""
    prompts = judged_prompts(run.size, run.params.seed)
    asked = {p["key"]: len(p["entities"]) for p in prompts}
    table = []
    for name, own in rows.items():
        found = set(own[own.method == "daam"].key)
        if found:
            shares = {
                column: Cell(100 * sum(k in found for k in keys) / len(keys))
                for column, keys in (
                    ("one", [key for key, objects in asked.items() if objects == 1]),
                    ("two", [key for key, objects in asked.items() if objects == 2]),
                )
            }
            table.append(Row(pictures_label(name), shares))
    return Table(
        "Pictures in which every word of the prompt has a mask that is accepted",
        {"one": "one object", "two": "two objects"},
        table,
        "The detector's, by the rules of the stage `triplets`. The other pictures are not judged: "
        "a model is not judged on what it did not draw.",
    )


def of_both(rows: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The rows of prompts whose words were found in both backbones' pictures."""
    if any(own.empty for own in rows.values()):
        return rows
    keys = set.intersection(*(set(own.key) for own in rows.values()))
    return {name: own[own.key.isin(keys)] for name, own in rows.items()}


def apart(run: StudyRun, rows: dict[str, pd.DataFrame], where: str) -> Table:
    """The transformer less the U-Net on the same scenes or prompts, paired."""
    ours, theirs = rows["transformer"], rows["U-Net"]
    table = [
        Row(
            label,
            cells_apart(
                ours[ours.method == method],
                theirs[theirs.method == method],
                run.params.benchmark.bootstrap,
            ),
        )
        for label, method in METHODS.items()
        if not ours.empty and (ours.method == method).any() and (theirs.method == method).any()
    ]
    note = "Points of mIoU, mean over the splits, in pairs; below 0 the transformer is worse."
    return Table(f"Transformer less U-Net on {where}", CELL_NAMES, table, note)


def verdict_of_pairs(table: Table, seeds: int) -> str:
    """Which differences lie beyond chance: the interval over pictures and seeds keeps them on one
    side of 0, and so does Student's over the seeds alone, which are too few for a bootstrap.

    seeds: trainings of a method that has a spread.
    """
    worse, better = [], []
    for row in table.rows:
        for cell, found in row.cells.items():
            reach = 0.0
            if found.spread is not None and seeds > 1:
                reach = float(stats.t.ppf(0.975, seeds - 1)) * found.spread / math.sqrt(seeds)
            if found.high is not None and max(found.high, found.value + reach) < 0:
                worse.append(f"{row.label}, {CELL_NAMES[cell]} ({found.value:.1f})")
            if found.low is not None and min(found.low, found.value - reach) > 0:
                better.append(f"{row.label}, {CELL_NAMES[cell]} (+{found.value:.1f})")
    return (
        "Beyond the spread of pictures and of grounding trainings the transformer is worse in "
        f"{'; '.join(worse) or 'no cell'}. It is better in {'; '.join(better) or 'no cell'}."
    )
