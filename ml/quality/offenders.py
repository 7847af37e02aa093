"""The pictures that break a rule, small, on one sheet: what a person looks at first."""

import tempfile
from pathlib import Path

import numpy as np

from ml.images.arrays import Labels, Masks, Picture
from ml.images.contact_sheet import contact_sheet
from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.pipeline import marks
from ml.pipeline.workspace import Workspace
from ml.quality.advice import PICTURES
from ml.quality.verdicts import Result
from ml.store.shards import read_rows

OVERLAYS = {"benchmark": "label", "synthetic_dataset": "label", "masks": "rle", "triplets": "rle"}
"""The judged stage's column that is laid over its pictures."""
UNREADABLE = np.full((64, 64, 3), 160, np.uint8)
"""Stands for a picture that can't be read."""


def offenders(stage: str, result: Result, workspace: Workspace) -> bytes:
    """A JPEG of at most 100 KB: the pictures of the rows that break a rule, masks or labels laid
    over, and below each what breaks it. b"" where the stage has no pictures, or no row names one.
    """
    if stage not in PICTURES or not result.rows:
        return b""
    keys = {row["key"] for row in result.rows}
    pictures: dict[str, object] = {}
    for folder in _folders(stage, workspace):
        found = read_rows(folder, ["key", "image"], keys)
        pictures |= dict(zip(found["key"], found["image"], strict=True))
    shown = [
        (row, _picture(pictures[row["key"]]), example)
        for row, example in zip(result.rows, result.examples, strict=True)
        if row["key"] in pictures
    ]
    if not shown:
        return b""
    laid = _laid_over(stage, workspace, keys)
    overlays = [
        _overlay(laid.get((row["key"], row.get("entity")), laid.get((row["key"], None))), made)
        for row, made, _ in shown
    ]
    with tempfile.TemporaryDirectory() as scratch:
        sheet = Path(scratch) / "offenders.jpg"
        contact_sheet([made for _, made, _ in shown], overlays, [text for *_, text in shown], sheet)
        return sheet.read_bytes()


def _folders(stage: str, workspace: Workspace) -> list[Path]:
    """The folders of shards that hold the pictures of a judged stage's rows."""
    if stage in marks.PICTURES:
        return marks.picture_folders(workspace, stage)
    return [workspace.folder(PICTURES[stage])]


def _laid_over(stage: str, workspace: Workspace, keys: set[str]) -> dict[object, object]:
    """By (key, entity) the mask, or by (key, None) the label map, that the stage holds."""
    column = OVERLAYS.get(stage, "")
    names = {"rle": ["key", "entity", "rle"], "label": ["key", "label"]}.get(column)
    rows = read_rows(workspace.folder(stage), names, keys).to_dict("records") if names else []
    return {(row["key"], row.get("entity")): row[column] for row in rows}


def _picture(data: object) -> Picture:
    try:
        picture = decode_png(data if isinstance(data, bytes) else b"")
    except ValueError:  # that it can't be read is why it is shown
        return UNREADABLE
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def _overlay(stored: object, picture: Picture) -> Masks | Labels | None:
    """A stored mask or label map; None without one, and for one that does not fit its picture."""
    try:
        if isinstance(stored, bytes):
            made: Masks | Labels = decode_png(stored)
        else:
            made = decode_rle(str(stored or ""))
    except ValueError:
        return None
    return made if made.shape == picture.shape[:2] else None
