"""Protocol I's five cells: how many objects a prompt names, and how many of them are unseen.

A cell's key stands in Parquet files and facts. Its two titles are published, in the studies'
pages and in reports, and must not change.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple


class Cell(NamedTuple):
    objects: int
    unseen: int  # of the objects
    study: str  # its title in the studies' pages
    report: str  # in a run's report and on the terminal


CELLS = {
    "one_seen": Cell(1, 0, "one, seen", "one object, seen"),
    "one_unseen": Cell(1, 1, "one, unseen", "one object, unseen"),
    "two_seen": Cell(2, 0, "two, seen", "two, both seen"),
    "two_mixed": Cell(2, 1, "two, seen + unseen", "two, seen + unseen"),
    "two_unseen": Cell(2, 2, "two, unseen", "two, both unseen"),
}
"""Key -> cell, in the order of every table."""


def cell_of(entities: Sequence[str], unseen: Collection[str]) -> str:
    """The key of the cell of one or two distinct classes. unseen: the classes that are never
    labelled. Raises ValueError for any other number of classes."""
    own = len(entities), sum(entity in unseen for entity in entities)
    for key, cell in CELLS.items():
        if (cell.objects, cell.unseen) == own:
            return key
    raise ValueError(f"{list(entities)}: expected one or two classes, as Protocol I has them")
