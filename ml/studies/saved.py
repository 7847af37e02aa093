"""The saved result of a study for the page: its blocks as JSON, `blocks/<study>.json` of the run.

So the page is made from whatever studies are finished, without their modules or models. A recipe
beside the file says which settings it was made with. What the page does with it is in `page`.
"""

import base64
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ml.store.files import read_note, write_json
from ml.studies.blocks import Block, Cell, Picture, Plot, Row, Table, Text
from ml.studies.study_run import TRANSFORMER, StudyRun

SECTIONS = ("grounding", "segmenter", "benchmark")
"""Of the settings, beside those that everything depends on, what a study's figures do."""

LAYOUT = 2
"""Raised when the files hold something else, so that older ones are written anew."""


@dataclass(frozen=True)
class Saved:
    title: str
    question: str
    blocks: tuple[Block, ...]
    older: bool = False  # published with other settings than the present ones


def save(run: StudyRun, name: str, saved: Saved) -> Path:
    """Writes a study's blocks, atomically. Raises ValueError when a table is not one that the page
    can show: a label or a column twice or unknown, named in the message."""
    for block in saved.blocks:
        if isinstance(block, Table):
            check_table(name, block)
    path = path_of(run, name)
    with run.making(path, recipe_of_blocks(run, name)):
        write_json(path, to_plain(saved))
    return path


def load(run: StudyRun, name: str) -> Saved | None:
    """A study's blocks, None when it was not finished with the settings of this run."""
    path = path_of(run, name)
    if not run.in_place(path, recipe_of_blocks(run, name)):
        return None
    saved = read_note(path, dict)
    return saved and from_plain(saved)


def check_table(name: str, table: Table) -> None:
    """Raises ValueError for labels that are there twice and for cells of no column."""
    labels = [row.label for row in table.rows]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(
            f"study {name}, table {table.title!r}: expected each label once, got "
            f"{twice} more than once; a label is what --row names"
        )
    for row in table.rows:
        if unknown := sorted(set(row.cells) - set(table.columns)):
            raise ValueError(
                f"study {name}, table {table.title!r}, row {row.label!r}: cells of "
                f"{unknown}, expected columns of {sorted(table.columns)}"
            )


def to_plain(saved: Saved, pictures: bool = True) -> dict:
    """As what JSON holds, any order of importance as a list. pictures: whether to keep them, or
    only their captions."""
    blocks = [_block_to_plain(block) for block in saved.blocks]
    if not pictures:
        for block in blocks:
            block.pop("jpeg", None)
    return {"title": saved.title, "question": saved.question, "blocks": blocks}


def from_plain(value: dict) -> Saved:
    """The inverse of `to_plain`. Raises ValueError for a kind of block that it does not know."""
    return Saved(
        value["title"],
        value["question"],
        tuple(_block_from_plain(block) for block in value["blocks"]),
    )


def _block_to_plain(block: Block) -> dict:
    match block:
        case Table():
            rows = [
                {
                    "label": row.label,
                    "cells": {name: _cell_to_plain(cell) for name, cell in row.cells.items()},
                }
                for row in block.rows
            ]
            return {
                "kind": "table",
                "title": block.title,
                "note": block.note,
                "rows": rows,
                "columns": [list(pair) for pair in block.columns.items()],
                "counts": list(block.counts),
            }
        case Plot():
            return {
                "kind": "plot",
                "title": block.title,
                "x": block.x,
                "y": block.y,
                "series": [
                    [name, [[_number(n) for n in point] for point in points]]
                    for name, points in block.series.items()
                ],
            }
        case Picture():
            return {
                "kind": "picture",
                "caption": block.caption,
                "jpeg": base64.b64encode(block.jpeg).decode(),
            }
        case Text():
            return {"kind": "text", "text": block.text}
    raise ValueError(f"expected a Table, Plot, Picture or Text, got {type(block).__name__}")


def _block_from_plain(value: dict) -> Block:
    match value["kind"]:
        case "table":
            rows = [
                Row(row["label"], {name: _cell(cell) for name, cell in row["cells"].items()})
                for row in value["rows"]
            ]
            return Table(
                value["title"], dict(value["columns"]), rows, value["note"], tuple(value["counts"])
            )
        case "plot":
            return Plot(
                value["title"],
                value["x"],
                value["y"],
                {name: [_point(point) for point in points] for name, points in value["series"]},
            )
        case "picture":
            return Picture(value["caption"], base64.b64decode(value["jpeg"]))
        case "text":
            return Text(value["text"])
    raise ValueError(f"expected a table, plot, picture or text, got {value['kind']!r}")


def _cell_to_plain(cell: Cell) -> dict:
    every = {name: _number(value) for name, value in asdict(cell).items()}
    return {name: value for name, value in every.items() if name == "value" or value is not None}


def _cell(value: dict) -> Cell:
    return Cell(**value | {"value": math.nan if value["value"] is None else value["value"]})


def _point(values: Sequence[float | None]) -> tuple:
    x, mean, spread = values
    return x, math.nan if mean is None else mean, spread


def _number(value: float | None) -> float | None:
    """As JSON has it: NaN becomes null. Six decimals, so that sums in another order, on another
    machine, give the same file."""
    return None if value is None or not math.isfinite(value) else round(float(value), 6)


def path_of(run: StudyRun, name: str) -> Path:
    """Where a study's blocks are kept."""
    return run.folder / "blocks" / f"{name}.json"


def recipe_of_blocks(run: StudyRun, name: str) -> str:
    """Digest of the settings and models that a study's figures depend on. Not among them: the
    module of another run that `few_labels` teaches; its tables have it in theirs."""
    own = {section: run.params.section(section) for section in SECTIONS}
    if name == "zero_shot":
        own["synthetic"] = run.params.section("synthetic")
        own["backbone"] = run.workspace.digest(run.params, "segmenter.backbone")
    if name == "backbones":
        own["transformer"] = replace(run, backbone=TRANSFORMER).recipe()
    return run.recipe(study=name, layout=LAYOUT, size=asdict(run.size), seed=run.params.seed, **own)
