"""Tables and verdicts of the study `backbones` that hold both backbones against each other."""

import pandas as pd

from ml.studies.backbone_rows import labels_of
from ml.studies.blocks import Cell, Row, Table
from ml.studies.cell_scores import CELL_NAMES, cells, cells_apart
from ml.studies.prompt_sets import judged_prompts
from ml.studies.records import GENERATED
from ml.studies.study_run import StudyRun
from ml.words.cells import CELLS


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


def drawn_well(run: StudyRun, rows: dict[str, pd.DataFrame]) -> Table:
    """Of the judged prompts the share whose words the detector found all."""
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
            table.append(Row(f"pictures of the {name}", shares))
    return Table(
        "Pictures in which the detector finds every word of the prompt",
        {"one": "one object", "two": "two objects"},
        table,
        "The others are not judged, so that a model is not judged on what it did not draw.",
    )


def verdict(table: Table, where: str) -> str:
    """In which cells each of the transformer's methods is behind the same one of the U-Net's."""
    values = {row.label: row.cells for row in table.rows}
    said = []
    for label in labels_of("U-Net"):
        name = label.removeprefix("U-Net: ")
        theirs = values.get(f"transformer: {name}")
        if label not in values or theirs is None:
            continue
        behind = {
            cell: theirs[cell].value - own.value
            for cell, own in values[label].items()
            if cell in theirs and theirs[cell].value < own.value
        }
        said.append(f"{name}: {_worse(behind)}")
    if not said:
        return "Not both backbones are scored yet."
    return f"The transformer against the U-Net on {where}: {'; '.join(said)}."


def _worse(behind: dict[str, float]) -> str:
    if not behind:
        return "worse in no cell"
    parts = [f"{CELL_NAMES[cell]} {points:.1f}" for cell, points in behind.items()]
    return f"worse in {len(parts)} of {len(CELLS)} cells ({', '.join(parts)} points)"


def apart(run: StudyRun, drawn: dict[str, pd.DataFrame]) -> Table:
    """The transformer less the U-Net on the same scenes, paired."""
    ours, theirs = drawn["transformer"], drawn["U-Net"]
    table = [
        Row(
            label.removeprefix("U-Net: "),
            cells_apart(
                ours[ours.method == method],
                theirs[theirs.method == method],
                run.params.benchmark.bootstrap,
            ),
        )
        for label, method in labels_of("U-Net").items()
        if (ours.method == method).any() and (theirs.method == method).any()
    ]
    note = "Points of mIoU, paired by scene; below 0 the transformer is worse."
    return Table("Transformer less U-Net on the same drawn scenes", CELL_NAMES, table, note)


def verdict_of_pairs(table: Table) -> str:
    """Which differences an interval keeps on one side of 0."""
    worse, better = [], []
    for row in table.rows:
        for cell, found in row.cells.items():
            if found.high is not None and found.high < 0:
                worse.append(f"{row.label}, {CELL_NAMES[cell]} ({found.value:.1f})")
            if found.low is not None and found.low > 0:
                better.append(f"{row.label}, {CELL_NAMES[cell]} (+{found.value:.1f})")
    return (
        f"Beyond chance the transformer is worse in {'; '.join(worse) or 'no cell'}. It is better "
        f"in {'; '.join(better) or 'no cell'}."
    )
