"""Figures of the five cells of Protocol I, of one method or of two compared in pairs."""

from collections.abc import Sequence

import pandas as pd

from ml.studies.blocks import Cell
from ml.studies.scores import difference, figure, mean_iou, paired_counts, pictures_of
from ml.words.cells import CELLS

CELL_NAMES = {key: cell.study for key, cell in CELLS.items()}


def cells(
    rows: pd.DataFrame, resamples: int, paper: Sequence[float] | None = None
) -> dict[str, Cell]:
    """The five cells of one method's raw rows, the paper's figures in their order beside them."""
    papers = dict(zip(CELLS, paper or (), strict=False))
    return {
        cell: mean_iou(rows[rows.cell == cell], resamples, papers.get(cell))
        for cell in CELLS
        if (rows.cell == cell).any()
    }


def cells_apart(a: pd.DataFrame, b: pd.DataFrame, resamples: int) -> dict[str, Cell]:
    """How far a's mIoU is above b's, in points, in each cell: of the same masks, paired."""
    found = {}
    for cell in CELLS:
        own = a[a.cell == cell]
        if stacks := paired_counts(own, b[b.cell == cell]):
            found[cell] = figure(stacks, difference, resamples, keys=pictures_of(own))
    return found


def counted(rows: pd.DataFrame) -> str:
    """How many pictures each cell has, splits added up."""
    counts = rows.groupby(["split", "cell"]).key.nunique().groupby("cell").sum()
    return ", ".join(f"{CELL_NAMES[cell]} {counts[cell]}" for cell in CELLS if cell in counts)
