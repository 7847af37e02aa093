"""What the checks judge of masks and triplets: beside what was asked for, and beside the pictures
and heat maps that they must fit."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.pipeline.workspace import Workspace
from ml.quality.edges import edge_map, outline, placement
from ml.quality.frames import Tables, as_in, balance, entities_of, facts, one_row
from ml.quality.heat import cover, inside_rank, own_excess, read_heat
from ml.quality.own_tables import own_tables
from ml.settings.params import Params
from ml.store.schemas import IMAGES, MASKS, TRIPLETS
from ml.store.shards import iter_shards
from ml.store.sidecars import OWN
from ml.words.spans import named_in
from ml.words.vocabulary import load_vocabulary

PLACED = 0.9
"""Median `inside_rank` of a class whose things the heat maps find. Of the micro model's 20 classes
19 have 0.94 or more, and "potted plant" 0.2: its heat lies around the pot."""
LOOKED_AT = 4096
"""Pictures, evenly spread, whose edges are looked at: 20 s at 512 pixels."""
NO_MASK = {"fits": True, "area_true": True, "fine": True, "inside": 0.0, "own_hottest": False}
"""The new columns of a row whose mask nobody can look at."""


def mask_tables(params: Params, workspace: Workspace) -> Tables:
    rows, vocabulary = facts(workspace, "masks", MASKS), load_vocabulary(params.vocabulary)
    rows["has_rle"] = rows["rle"].str.len() > 0
    asked = entities_of(facts(workspace, "images", IMAGES), vocabulary)
    rows["as_pictured"] = as_in(rows, asked, ["key", "entity", "word", "purpose", "cell"])
    rows, moved = beside_pictures(workspace, rows, edges=params.checks.placement)
    pairs, wanted = pairs_of(rows), pairs_of(asked)
    labels, found = rows[rows["role"] == "labeller"], rows[rows["found"]]
    return {
        "rows": rows,
        "labels": labels,
        "found": found,
        "classes": balance(labels[labels["found"]]["entity"], vocabulary.seen),
        "total": one_row(
            missing=len(wanted - pairs),
            unasked=len(pairs - wanted),
            found_share=float(rows["found"].mean()),
            labels_found_share=float(labels["found"].mean()),
            **moved,
        ),
    } | heat_tables(found)


def pairs_of(rows: pd.DataFrame) -> set[tuple[str, str]]:
    """(key, entity) of the rows."""
    return set(zip(rows["key"], rows["entity"], strict=True))


def heat_tables(found: pd.DataFrame) -> Tables:
    """How well heat maps and masks agree, by class; then, for the classes that the heat maps find,
    each mask, and each mask beside another word's heat.

    A table without rows would fail its rules; where there is nothing to compare it says so.
    """
    heat = found.groupby("entity")["inside"].agg(["median", "size"]).reset_index(names="class")
    placed = set(heat[heat["median"] >= PLACED]["class"])
    others = found["others"].map(lambda names: set(names) <= placed and len(names) > 0)
    hot = found[found["entity"].isin(placed)]
    pairs = hot[others[hot.index]]
    return {
        "heat classes": heat,
        "placed": hot if len(hot) else one_row(key="(no class is placed)", inside=1.0),
        "pairs": pairs if len(pairs) else one_row(key="(no such pair)", own_hottest=True),
    }


def beside_pictures(
    workspace: Workspace, rows: pd.DataFrame, *, edges: bool
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The rows with what their masks are beside picture and heat maps, and `edges.placement`, of
    no picture unless `edges`.

    New columns: fits (as large as the picture), area_true, fine (not made of blocks), inside
    (`inside_rank`), own_hottest, others (the other entities of the picture).
    """
    made: dict[int, dict[str, Any]] = {}
    moved = placement(_judged(workspace, rows, made, LOOKED_AT if edges else 0))
    blank = NO_MASK | {"others": ()}
    found = pd.DataFrame([made.get(index, blank) for index in range(len(rows))], index=rows.index)
    return pd.concat([rows, found], axis=1), moved


def _judged(
    workspace: Workspace, rows: pd.DataFrame, made: dict[int, dict[str, Any]], looked_at: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields edges and outlines of every mask of the pictures looked at, a shard of pictures in
    memory at a time; fills `made`, row number -> new columns."""
    places = rows.groupby("key").indices
    step, seen = max(1, len(places) // max(1, looked_at)), 0
    records = list(rows.itertuples())
    columns = ["key", "entities", "width", "height", "image", "daam", "daam_shape"]
    for shard in iter_shards(workspace.folder("images"), columns):
        for picture in shard.itertuples():
            heat = read_heat(picture.daam, picture.daam_shape)
            looked = looked_at and seen % step == 0
            edges = edge_map(decode_png(picture.image)) if looked else None
            seen += 1
            for place in places.get(picture.key, ()):
                made[place], mask = mask_facts(records[place], picture, heat)
                if edges is not None and mask is not None:
                    yield edges, outline(mask)


def mask_facts(
    row: Any, picture: Any, heat: np.ndarray | None
) -> tuple[dict[str, Any], np.ndarray | None]:
    """The new columns of one row of `masks`, and its mask where there is one to look at."""
    names = list(picture.entities)
    others = tuple(name for name in names if name != row.entity)
    out: dict[str, Any] = NO_MASK | {"others": others}
    if not row.rle:
        return out | {"area_true": not row.found}, None
    try:
        mask = decode_rle(row.rle)
    except ValueError:  # no run lengths: the rule on `fits` says so of this row
        return out | {"fits": False}, None
    out["fits"] = mask.shape == (picture.height, picture.width)
    out["area_true"] = abs(float(mask.mean()) - row.area) < 1e-6
    out["fine"] = not coarse(mask)
    if heat is not None and row.entity in names and len(heat) == len(names):
        own = names.index(row.entity)
        covered = cover(mask, heat.shape[1:])
        out["inside"] = inside_rank(heat[own], covered)
        out["own_hottest"] = len(names) > 1 and own_excess(heat, covered, own) > 0
    return out, mask


def coarse(mask: np.ndarray) -> bool:
    """Whether a mask bool (H,W) is made of squares of 1/32 of its height: enlarged from a map of
    32 rows or fewer. An empty or full one is not."""
    side = max(2, len(mask) // 32)
    height, width = (length // side * side for length in mask.shape)
    if not height or not width or mask.all() or not mask.any():
        return False
    squares = mask[:height, :width].reshape(height // side, side, width // side, side)
    return bool((squares == squares[:, :1, :, :1]).all())


def triplet_tables(params: Params, workspace: Workspace) -> Tables:
    every, vocabulary = facts(workspace, "triplets", TRIPLETS), load_vocabulary(params.vocabulary)
    rows = every[every["subset"] != OWN].reset_index(drop=True)
    rows["named_in_text"] = [
        named_in(text, [word])[0] for word, text in zip(rows["word"], rows["text"], strict=True)
    ]
    rows["has_rle"] = rows["rle"].str.len() > 0
    rows["no_reason"] = rows["reason"] == ""
    masks = facts(workspace, "masks", MASKS)
    shared = [name for name in TRIPLETS.names if name in MASKS.names]
    rows["as_masked"] = as_in(rows, masks, shared)
    pictures = facts(workspace, "images", IMAGES)
    rows["as_pictured"] = as_in(rows, pictures, ["key", "text", "std", "dhash"])
    subsets = rows.groupby("key")["subset"].nunique()
    labels = rows[rows["subset"].isin(["train", "validation"])]
    accepted = rows[rows["accepted"]]
    return {
        "rows": rows,
        "accepted": accepted,
        "labels": labels,
        "classes": balance(labels[labels["accepted"]]["entity"], vocabulary.seen),
        "total": one_row(
            missing=len(pairs_of(masks) - pairs_of(rows)),
            yield_share=float(labels["accepted"].mean()),
            in_two_subsets=int((subsets > 1).sum()),
            validation=int((accepted["subset"] == "validation").sum()),
            sim=int((accepted["subset"] == "sim").sum()),
        ),
    } | own_tables(params, workspace, every)
