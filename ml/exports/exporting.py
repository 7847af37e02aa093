"""A set, written in a format into a folder: nothing is done where it stands there already."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ml.exports import writer_of
from ml.exports.about import About
from ml.exports.card import card
from ml.exports.counts import Counts
from ml.exports.folder import finished, new_export, refuse_others
from ml.exports.pictures import iter_pictures
from ml.exports.splits import assign
from ml.images.near_groups import near_groups
from ml.store.files import sha256_json

VERSION = 1
"""Raised when the same set and arguments give other files."""


@dataclass(frozen=True)
class Order:
    """How a set is to be written. bits: difference hashes this close may be of near copies."""

    format: str
    shares: dict[str, float]
    seed: int
    bits: int


def recipe_of(about: About, order: Order) -> dict[str, Any]:
    """All that an export depends on."""
    return {"version": VERSION, "set": about.digest, "about": sha256_json(asdict(about))} | asdict(
        order
    )


def standing(folder: Path, about: About, order: Order) -> dict[str, Any] | None:
    """The facts of this very export where it stands in the folder, whole; else None.

    Raises ValueError for a folder that it may not replace, before any work.
    """
    recipe = recipe_of(about, order)
    if (facts := finished(folder, recipe)) is None:
        refuse_others(folder, recipe)
    return facts


def write_export(folder: Path, shards: Path, about: About, order: Order) -> dict[str, Any]:
    """Writes the accepted pictures of `shards` (columns: `ml.exports.pictures.LABELLED`, those of
    `about.origin`), and returns what was counted and measured.

    The folder appears whole or not at all. Raises ValueError for no picture, a split that would be
    empty or that the format's readers do not take, and what may not be replaced.
    """
    kind = writer_of(order.format)
    splits = tuple(order.shares)
    groups = near_groups(shards, order.bits)
    if not len(groups):
        raise ValueError(
            f"no accepted picture in {shards}: nothing to export. Look at the reasons of the "
            "rejected, make more pictures, or relax the limits of `synthetic:`"
        )
    places = assign(groups, order.shares, order.seed)
    copies = len(groups) - len(np.unique(groups))
    del groups
    counts, facts = Counts(about.classes, splits), dict[str, Any]()
    with new_export(folder, recipe_of(about, order), facts) as making:
        writer = kind(making, about, splits)
        pictures = iter_pictures(shards, about.origin, splits, places)
        for picture in tqdm(pictures, f"export {order.format}", len(places), unit="picture"):
            writer.add(picture)
            counts.add(picture)
        measured = writer.finish()
        facts |= counts.plain() | {"near_copies": copies, "measured": measured}
        read = kind.READ.replace("{folder}", ".").replace("{split}", splits[0])
        text = card(about, counts, measured, read, kind.LOSES, writer.front_matter())
        (making / "README.md").write_text(text, encoding="utf-8")
    return facts
