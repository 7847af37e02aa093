"""What the marks (`ml.pipeline.marks`) say of the labels that are there now.

Not here: the marks' file, the arithmetic of precision (`ml.pipeline.audit`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ml.pipeline.audit import STAGE, precision
from ml.pipeline.marks import MARKED, Mark, picture_folders, picture_sha256, read_marks
from ml.pipeline.workspace import Workspace
from ml.store.shards import iter_rows, read_shards


@dataclass(frozen=True)
class Audited:
    """What was judged of a stage's labels.

    rows: as `ml.pipeline.audit.precision` gives them, [] where nothing was judged. gone: how many
    marks are about pictures, or words of them, that are not in the set.
    """

    rows: list[dict]
    gone: int

    @property
    def all(self) -> dict | None:
        """The row over all classes."""
        return self.rows[-1] if self.rows else None


def audited(workspace: Workspace, stage: str) -> Audited:
    """What the marks say of a stage of `ml.pipeline.marks.PICTURES`, as its folder is now.

    Only accepted labels count: of those that were rejected nobody learns. Raises ValueError for a
    file of marks that can't be read, or a folder without shards.
    """
    marks = [mark for mark in read_marks(workspace) if mark.stage == stage]
    if not marks:
        return Audited([], 0)
    rows = label_rows(workspace, stage)
    places = matches(_pictures(workspace, marks), marks, rows)
    said = {row: marks[place].verdict for place, row in places.items()}  # the last one stays
    ticks = [{"entity": rows.entity[row], "verdict": verdict} for row, verdict in said.items()]
    return Audited(precision(ticks) if ticks else [], len(marks) - len(places))


def marks_of(workspace: Workspace, ticks: Sequence[dict]) -> list[Mark]:
    """The ticks of a saved sheet (`ml.pipeline.audit.read_ticks`) as marks."""
    pictures = _digests(workspace.folder(STAGE), {tick["key"] for tick in ticks})
    return [
        Mark(STAGE, pictures[tick["key"]], tick["key"], tick["entity"], tick["verdict"])
        for tick in ticks
    ]


def label_rows(workspace: Workspace, stage: str) -> pd.DataFrame:
    """The labels that a stage accepted by itself: key, entity and word, a row a mask."""
    if stage == "triplets":
        rows = read_shards(workspace.folder(stage), ["key", "entity", "word", "accepted", "reason"])
        rows["accepted"] |= rows.reason == MARKED  # it was, until somebody looked
    else:
        rows = read_shards(workspace.folder(stage), ["key", "entities", "words", "accepted"])
        rows = rows.explode(["entities", "words"], ignore_index=True)
        rows = rows.rename(columns={"entities": "entity", "words": "word"})
    return rows.loc[rows.accepted.astype(bool), ["key", "entity", "word"]]


def verdicts_of(workspace: Workspace, marks: Sequence[Mark], rows: pd.DataFrame) -> pd.Series:
    """`verdicts_among` the pictures that the marks' stage has now."""
    return verdicts_among(_pictures(workspace, marks), marks, rows)


def verdicts_among(
    pictures: Mapping[str, str], marks: Sequence[Mark], rows: pd.DataFrame
) -> pd.Series:
    """The last verdict on each row, "" where there is none. Arguments: `matches`."""
    found = pd.Series("", index=rows.index, dtype=object)
    for place, row in matches(pictures, marks, rows).items():
        found[row] = marks[place].verdict
    return found


def matches(
    pictures: Mapping[str, str], marks: Sequence[Mark], rows: pd.DataFrame
) -> dict[int, int]:
    """Place of a mark -> index of the row that it is about, in the marks' order; no others.

    pictures: key -> `picture_sha256`. marks: of one stage. rows: key, entity, word, one a mask of
    that stage. A mark is about a row when key and picture are the same, and its word is the row's
    word, or else its class.
    """
    own = rows[rows.key.isin({mark.key for mark in marks})]
    named = {(row.key, row.entity): row.Index for row in own.itertuples()}
    named |= {(row.key, row.word): row.Index for row in own.itertuples()}
    return {
        place: named[mark.key, mark.word]
        for place, mark in enumerate(marks)
        if pictures.get(mark.key) == mark.sha256 and (mark.key, mark.word) in named
    }


def _pictures(workspace: Workspace, marks: Sequence[Mark]) -> dict[str, str]:
    """Key -> sha256 of the pictures of the marks' keys, as they are now. marks: of one stage."""
    keys = {mark.key for mark in marks}
    found: dict[str, str] = {}
    for folder in picture_folders(workspace, marks[0].stage) if marks else []:
        found |= _digests(folder, keys)
    return found


def _digests(folder: Path, keys: set[str]) -> dict[str, str]:
    """sha256 of the stored bytes of these pictures, by key; those that are there."""
    found = {}
    for frame in iter_rows(folder, ["key", "image"], keys):
        found |= {
            key: picture_sha256(data) for key, data in zip(frame.key, frame.image, strict=True)
        }
    return found
