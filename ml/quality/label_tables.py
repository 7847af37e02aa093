"""What the checks judge of the synthetic set: its rows, and its pixels beside prompts, masks and
the benchmark."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from ml.images.leaks import find_overlap, small
from ml.images.overlays import IGNORED
from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.pipeline.picture_size import picture_side
from ml.pipeline.stored_thumbs import stored_thumbs
from ml.pipeline.workspace import Workspace
from ml.quality.edges import edge_map, outline, placement
from ml.quality.frames import (
    Tables,
    as_in,
    balance,
    entities_of,
    facts,
    near_duplicates,
    one_row,
)
from ml.quality.mask_tables import coarse
from ml.quality.picture_tables import whiteness
from ml.settings.params import Params
from ml.store.schemas import PROMPTS, SYNTHETIC
from ml.store.shards import iter_shards
from ml.words.vocabulary import Vocabulary, load_vocabulary


def synthetic_tables(params: Params, workspace: Workspace) -> Tables:
    rows = facts(workspace, "synthetic_dataset", SYNTHETIC)
    vocabulary = load_vocabulary(params.vocabulary)
    prompts = facts(workspace, "prompts", PROMPTS)
    wanted = set(prompts[prompts["purpose"] == "synthetic"]["key"])
    rows["as_prompted"] = as_in(rows, prompts, PROMPTS.names)
    rows["expected_side"] = picture_side(params, workspace) or rows["width"].mode()[0]
    rows["whiteness"] = whiteness(rows)
    near = near_duplicates(rows["dhash"], params.triplets.duplicate_bits)
    found: list[dict[str, Any]] = []
    moved = placement(label_facts(workspace, vocabulary, found, params.checks.placement))
    rows = pd.concat([rows, pd.DataFrame(found)], axis=1)
    accepted = rows[rows["accepted"]]
    entities = accepted["entities"].explode()
    return {
        "rows": rows,
        "accepted": accepted,
        "entities": entities_of(rows, vocabulary),
        "classes": balance(entities, vocabulary.classes),
        "total": one_row(
            missing=len(wanted - set(rows["key"])),
            accepted=len(accepted),
            yield_share=float(rows["accepted"].mean()),
            near_duplicate_share=float(near.mean()),
            in_benchmark=int(rows["in_benchmark"].sum()),
            mean_ignored=float(accepted["ignored"].mean()),
            **moved,
        ),
    }


def label_facts(
    workspace: Workspace, vocabulary: Vocabulary, found: list[dict[str, Any]], edges: bool
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields edges and outlines of every mask of the synthetic pictures if `edges`, a shard in
    memory at a time; fills `found`, a row a picture, with what its pixels say of it."""
    thumbs = stored_thumbs(workspace, mirrored=True)
    columns = ["key", "entities", "image", "label", "rles", "areas", "ignored", "accepted"]
    for shard in iter_shards(workspace.folder("synthetic_dataset"), columns):
        pictures = [decode_png(data) for data in shard["image"]]
        leaked = set(find_overlap(map(small, pictures), thumbs))
        for index, (row, picture) in enumerate(zip(shard.itertuples(), pictures, strict=True)):
            label = decode_png(row.label)
            masks = read_masks(row.rles, label.shape)
            found.append(pixel_facts(row, picture, label, masks, vocabulary))
            found[-1]["in_benchmark"] = index in leaked
            if edges and row.accepted:
                shown = edge_map(picture)
                yield from ((shown, outline(mask)) for mask in masks if mask is not None)


def read_masks(rles: Any, size: tuple[int, ...]) -> list[np.ndarray | None]:
    """The masks bool (H,W) of run-length texts; None where a text is no mask of that size."""
    masks: list[np.ndarray | None] = []
    for text in rles:
        try:
            mask = decode_rle(text)
        except ValueError:  # the rule on `labels_masked` says so of this row
            mask = np.zeros((0, 0), bool)
        masks.append(mask if mask.shape == size else None)
    return masks


def pixel_facts(
    row: Any,
    picture: np.ndarray,
    label: np.ndarray,
    masks: list[np.ndarray | None],
    vocabulary: Vocabulary,
) -> dict[str, Any]:
    """Of one picture. label_fits: as large as the picture; labels_named: its labels are those of
    the prompt; labels_masked: where it says a class, so does the class's mask; facts_true: areas
    and ignored share are those of the label map; least and greatest area of its entities (0..1);
    fine: not all masks are made of blocks."""
    counts = np.bincount(label.ravel(), minlength=256) / label.size
    values = [vocabulary.label(e) if e in vocabulary.classes else 0 for e in row.entities]
    areas = [float(counts[value]) for value in values]
    whole = [mask for mask in masks if mask is not None]
    return {
        "label_fits": label.shape == picture.shape[:2],
        "labels_named": set(np.flatnonzero(counts).tolist()) <= {*values, 0, IGNORED},
        "labels_masked": len(whole) == len(values)
        and not any(
            ((label == value) & ~mask).any() for value, mask in zip(values, whole, strict=True)
        ),
        "facts_true": np.allclose([*areas, counts[IGNORED]], [*row.areas, row.ignored], atol=1e-6)
        if len(row.areas) == len(areas)
        else False,
        "least_area": min(areas),
        "greatest_area": max(areas),
        "fine": not whole or not all(map(coarse, whole)),
    }
