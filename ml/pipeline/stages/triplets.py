"""Stage `triplets`: which {picture, mask, word} are good enough for training or for scoring.

Reads: `images`, `masks`, what people marked wrong (`ml.pipeline.marks`), and the user's own
pictures that `triplets.labels` names, if any. Writes: shards in the TRIPLETS schema,
contact_sheet.jpg, rejected.jpg; of the user's own the pictures in labelled/, and labelled.jpg.
Settings: vocabulary, triplets. Every row is kept with the filter's verdict, so that what was
rejected can be counted and looked at. Not here: finding masks (`masks`), or learning
(`grounding_model`).
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml.images.contact_sheet import contact_sheet, spread
from ml.images.repeats import find_repeats
from ml.images.run_lengths import decode_rle
from ml.images.stored import load_pictures
from ml.pipeline.audited import verdicts_of
from ml.pipeline.labelled import write_labelled
from ml.pipeline.labelled_rows import facts_of as labelled_facts
from ml.pipeline.labelled_rows import (
    labelled_shards,
    own_rles,
    own_triplets,
    refuse_untaught,
    rejections,
)
from ml.pipeline.marks import MARKED, RIGHT, read_marks
from ml.pipeline.stages.masks import refuse_unseen
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.sections import TripletParams
from ml.store.making import write_shards
from ml.store.schemas import MASKS, TRIPLETS
from ml.store.shards import iter_shards, read_frame, read_rows, read_shards
from ml.store.sidecars import OWN, shard_files
from ml.words.vocabulary import load_vocabulary, refuse_unlabelled

REASONS = {
    MARKED: "a person marked the mask wrong",
    "blank_picture": "grey levels spread less than min_std",
    "repeated_picture": "nearly the pixels of an earlier one that is neither blank nor repeated",
    "no_mask": "the detector found no instance of the entity",
    "low_score": "its best detection scores below min_score",
    "too_small": "the mask covers less than min_area of the picture",
    "too_large": "the mask covers more than max_area of the picture",
    "entity_missing": "sim only: the other entity of the picture was rejected for its mask",
}
"""Reason -> rule, in the order in which they are tried; the first that holds is given.

A training picture that shows only one of its two entities is kept for that one, since the
grounding model skips empty masks. A sim picture must show all that was asked for, or Protocol I
would judge a model by a picture that does not.
"""
MASK_REASONS = (MARKED, "no_mask", "low_score", "too_small", "too_large")
SHEET_PICTURES = 24
_FACTS = (
    *("key", "text", "entities", "words", "phrases", "purpose"),
    *("height", "width", "std", "dhash", "sha256"),
)


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes one TRIPLETS shard for each shard of `masks`, contact_sheet.jpg and rejected.jpg; then
    one for each shard of the user's own pictures.

    Raises ValueError when masks and images do not belong together, or a training row has a class
    that is not seen, or the user's own pictures are not what they should be.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    refuse_unlabelled(vocabulary, params.triplets.labels)
    images, folder = workspace.folder("images"), workspace.folder("triplets")
    pictures = read_shards(images, _FACTS)
    refuse_unseen(pictures[pictures.purpose == "train"], vocabulary)
    masks = workspace.folder("masks")
    groups = list(iter_shards(masks, [name for name in MASKS.names if name != "rle"]))
    rows = join(pictures, pd.concat(groups, ignore_index=True))
    whole = pictures[pictures["std"] >= params.triplets.min_std]  # blank ones repeat nothing
    facts = (list(whole[name]) for name in ("key", "dhash", "sha256"))
    repeats = find_repeats(images, *facts, bits=params.triplets.duplicate_bits)
    marks = [mark for mark in read_marks(workspace) if mark.stage == "triplets"]
    marked = ~verdicts_of(workspace, marks, rows).isin(["", RIGHT])
    rows["reason"] = judge(rows, repeats, params.triplets, marked)
    rows["accepted"] = rows.reason == ""
    rows["subset"] = [
        subset_of(key, purpose, params.triplets.validation_share)
        for key, purpose in zip(rows.key, rows.purpose, strict=True)
    ]
    files, facts = shard_files(masks), facts_of(rows)
    pictures_written: dict[str, int] = {}
    own: pd.DataFrame | None = None
    if params.triplets.labels is not None:
        size = (int(pictures.height.iloc[0]), int(pictures.width.iloc[0]))
        photos, pictures_written = write_labelled(
            params, workspace, vocabulary, size, folder, recipe
        )
        shards = labelled_shards(folder)
        added = own_triplets(folder, shards, images, pictures, params.triplets)
        own = pd.concat(added, ignore_index=True)
        wrong = ~verdicts_of(workspace, marks, own).isin(["", RIGHT])
        own.loc[wrong, ["reason", "accepted"]] = MARKED, False
        refuse_untaught(own, vocabulary)
        every = pd.concat(shards, ignore_index=True)
        facts["labelled"] = labelled_facts(photos.title, every, own)
        groups, files = [*groups, *added], [*files, *shard_files(folder / OWN)]
        rows = pd.concat([rows, own], ignore_index=True)
    ends = np.cumsum([len(group) for group in groups])
    plan = [range(end - len(group), end) for group, end in zip(groups, ends, strict=True)]
    sources = {part.start: path for part, path in zip(plan, files, strict=True) if part}

    def make(part: Sequence[int]) -> pd.DataFrame:
        """Run lengths are read where they are written: a large set's do not fit in memory."""
        rles = _rles(sources[part[0]]) if part else ()
        return rows.iloc[part].assign(rle=list(rles))[TRIPLETS.names]

    written = write_shards(folder, recipe, plan, make, TRIPLETS)
    drawn = rows[rows.subset != OWN]
    for name, shown in (("contact_sheet", drawn.accepted), ("rejected", ~drawn.accepted)):
        _sheet(images, folder, f"{name}.jpg", drawn[shown])
    if own is not None:
        _sheet(folder / OWN, folder, f"{OWN}.jpg", own)
    return Output(rows=written | pictures_written, facts=facts)


def _rles(shard: Path) -> Sequence[str]:
    """The run lengths of a shard of `masks`, or of the user's own pictures, row by row."""
    return own_rles(shard) if shard.parent.name == OWN else list(read_frame(shard, ["rle"]).rle)


def join(pictures: pd.DataFrame, masks: pd.DataFrame) -> pd.DataFrame:
    """Rows of `masks` with their picture's facts and the entity's phrase, in the order of `masks`.

    Raises ValueError unless there is exactly one mask row for each picture and entity.
    """
    if pictures.key.duplicated().any():
        key = pictures.key[pictures.key.duplicated()].iloc[0]
        raise ValueError(
            f"images: key {key!r} occurs more than once, expected unique keys; make `images` again"
        )
    named = pictures[["key", "entities", "phrases", "text", "std", "dhash"]]
    named = named.explode(["entities", "phrases"]).rename(
        columns={"entities": "entity", "phrases": "phrase"}
    )
    expected = set(zip(named.key, named.entity, strict=True))
    got = list(zip(masks.key, masks.entity, strict=True))
    if len(got) != len(set(got)) or set(got) != expected:
        odd = sorted(expected ^ set(got)) or sorted(p for p in set(got) if got.count(p) > 1)
        raise ValueError(
            "masks and images do not belong together: expected one mask row for each "
            f"picture and entity, got none or several for {odd[:3]}; make `masks` "
            "again"
        )
    return masks.merge(named, on=["key", "entity"], how="left", validate="one_to_one")


def judge(
    rows: pd.DataFrame,
    repeats: dict[str, str],
    params: TripletParams,
    marked: pd.Series | None = None,
) -> pd.Series:
    """The reason of each row, "" for an accepted one; the rules of REASONS in their order.

    rows: key, purpose, std, found, score, area. marked: bool, a person marked the row wrong.
    """
    rules = [
        (MARKED, pd.Series(False, index=rows.index) if marked is None else marked),
        ("blank_picture", rows["std"] < params.min_std),
        ("repeated_picture", rows.key.isin(list(repeats))),
        ("no_mask", ~rows.found.astype(bool)),
        ("low_score", rows.score < params.min_score),
        ("too_small", rows.area < params.min_area),
        ("too_large", rows.area > params.max_area),
    ]
    reason = pd.Series(
        np.select([hit for _, hit in rules], [name for name, _ in rules], ""),
        index=rows.index,
        dtype=object,
    )
    lacking = rows.key.isin(rows.key[reason.isin(MASK_REASONS)])
    reason[(rows.purpose == "sim") & lacking & (reason == "")] = "entity_missing"
    return reason


def subset_of(key: str, purpose: str, validation_share: float) -> str:
    """sim, train or validation; by the picture's key, so that its entities stay together and a
    picture stays where it is when others are added."""
    if purpose == "sim":
        return "sim"
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    return "validation" if share < validation_share else "train"


def facts_of(rows: pd.DataFrame) -> dict[str, Any]:
    """Counts and yields (accepted share, 0..1) by subset and class; rejections by reason, class."""
    rejected = rows[~rows.accepted]
    return {
        "rows": len(rows),
        "accepted": int(rows.accepted.sum()),
        "yield": float(rows.accepted.mean()) if len(rows) else 0.0,
        "subsets": {
            subset: {
                "rows": len(part),
                "accepted": int(part.accepted.sum()),
                "yield": float(part.accepted.mean()),
                "pictures": int(part.key[part.accepted].nunique()),
                "accepted_by_class": {
                    name: int(each.accepted.sum()) for name, each in part.groupby("entity")
                },
            }
            for subset, part in rows.groupby("subset")
        },
        **rejections(rejected, REASONS),
    }


def _sheet(images: Path, folder: Path, name: str, rows: pd.DataFrame) -> None:
    """One tile a row, spread over reasons first, so that a rare one is seen; none for no rows."""
    if not len(rows):
        return
    rows = rows.sort_values("reason", kind="stable")
    rows = rows.iloc[spread(len(rows), SHEET_PICTURES)]
    pictures = load_pictures(images, list(rows.key))
    images_shown = [pictures[key] for key in rows.key]
    stored = read_rows(folder, ["key", "entity", "rle"], rows.key).set_index(["key", "entity"])
    rles = [stored.rle[key, entity] for key, entity in zip(rows.key, rows.entity, strict=True)]
    masks = [decode_rle(rle) if rle else None for rle in rles]
    captions = [f"{row.word} {row.score:.2f} {row.reason}".rstrip() for row in rows.itertuples()]
    contact_sheet(images_shown, masks, captions, folder / name)
