"""Which masks of a user's own pictures may teach: the filter's verdict on each, and its counts.

Not here: the pictures and masks themselves (`ml.pipeline.labelled`).
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml.images.near_copies import CloseHashes, same_picture
from ml.images.stored import load_pictures
from ml.pipeline.labelled import SHOWN
from ml.pipeline.marks import MARKED
from ml.settings.sections import TripletParams
from ml.store.schemas import LABELLED
from ml.store.shards import iter_shards, read_frame, split
from ml.store.sidecars import OWN
from ml.words.vocabulary import Vocabulary

REASONS = {
    MARKED: "a person marked the mask wrong",
    "benchmark_copy": "the picture is, or nearly is, one of the benchmark's, mirrored or not",
    "blank_picture": "grey levels spread less than min_std",
    "repeated_picture": "nearly the pixels of a generated picture, or of an earlier one of these",
    "too_many_words": "the prompt of its words is longer than the model reads",
    "too_small": "the mask covers less than min_area of the picture, once cut to its size",
    "too_large": "the mask covers more than max_area of the picture, once cut to its size",
}
"""Reason -> rule, in the order in which they are tried; the first that holds is given."""
_PIXELS = ("image", "rles", "ignored")
_AT_ONCE = 64
"""Pictures in memory that one is compared with."""


def labelled_shards(folder: Path) -> list[pd.DataFrame]:
    """Rows of LABELLED without pixels and masks, a frame a shard. folder: of `triplets`."""
    return list(iter_shards(folder / OWN, [n for n in LABELLED.names if n not in _PIXELS]))


def own_rles(shard: Path) -> list[str]:
    """The run lengths of a shard of LABELLED, in the order of its rows of TRIPLETS."""
    return [rle for own in read_frame(shard, ["rles"]).rles for rle in own]


def own_triplets(
    folder: Path,
    shards: Sequence[pd.DataFrame],
    images: Path,
    generated: pd.DataFrame,
    params: TripletParams,
) -> list[pd.DataFrame]:
    """Rows of TRIPLETS but for `rle`, a frame a shard of LABELLED: one a picture and class in it.

    folder: of `triplets`; shards: its `labelled_shards`; images: of the generated pictures, whose
    rows with key, std, dhash are `generated`.
    """
    pictures = pd.concat(shards, ignore_index=True)
    whole = [frame[frame["std"] >= params.min_std] for frame in (generated, pictures)]
    repeats = repeated(images, whole[0], folder / OWN, whole[1], params.duplicate_bits)
    return [_rows(frame, repeats, params) for frame in shards]


def _rows(pictures: pd.DataFrame, repeats: set[str], params: TripletParams) -> pd.DataFrame:
    named = pictures[pictures.entities.map(len) > 0].explode(
        ["entities", "words", "phrases", "areas"], ignore_index=True
    )
    rows = named.rename(
        columns={"entities": "entity", "words": "word", "phrases": "phrase", "areas": "area"}
    )
    rows["area"] = rows["area"].astype(float)
    rules = [
        ("benchmark_copy", rows.benchmark_overlap),
        ("blank_picture", rows["std"] < params.min_std),
        ("repeated_picture", rows.key.isin(repeats)),
        ("too_many_words", rows.too_many_words),
        ("too_small", (rows.area < params.min_area) | (rows.area == 0)),
        ("too_large", rows.area > params.max_area),
    ]
    hits = [hit.astype(bool) for _, hit in rules]
    reason = np.select(hits, [name for name, _ in rules], "")
    return rows.assign(
        purpose=OWN, cell="", subset=OWN, score=1.0, reason=reason, accepted=reason == ""
    )


def repeated(
    images: Path, generated: pd.DataFrame, folder: Path, own: pd.DataFrame, bits: int
) -> set[str]:
    """Keys of a user's pictures that repeat a generated one, or an earlier one of theirs; a repeat
    makes no further repeats.

    generated, own: rows with key and dhash of pictures in the shards of `images` and `folder`.
    Close hashes are compared pixel by pixel, as `ml.images.repeats` does.
    """
    keys = [*generated.key, *own.key]
    index = CloseHashes([*generated.dhash, *own.dhash], bits)
    first = len(generated)
    close = [pairs[pairs[:, 1] >= first] for pairs in map(index.later, index.parts())]
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *close])
    ordered = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))].tolist()
    found: set[str] = set()
    for later, group in groupby(ordered, key=lambda pair: pair[1]):
        near = [earlier for earlier, _ in group if earlier < first or keys[earlier] not in found]
        for part in split(near, _AT_ONCE):
            shown = load_pictures(folder, [keys[i] for i in (later, *part) if i >= first])
            one = shown.pop(keys[later])
            drawn = load_pictures(images, [keys[i] for i in part if i < first])
            if any(same_picture(other, one) for other in (*drawn.values(), *shown.values())):
                found.add(keys[later])
                break
    return found


def refuse_untaught(rows: pd.DataFrame, vocabulary: Vocabulary) -> None:
    """Raises ValueError for a `labelled:` class of which no mask was accepted."""
    taught = set(rows[rows.accepted].entity)
    for name in vocabulary.labelled:
        if name not in taught:
            reasons = rows[rows.entity == name].reason.value_counts().to_dict()
            raise ValueError(
                f"vocabulary {vocabulary.name!r} lists {name!r} under `labelled:`, and none of its "
                f"masks in triplets.labels was accepted ({reasons}): nothing would teach it. Add "
                "masks, change the filter's settings, or list it under `unseen:`"
            )


def facts_of(title: str, pictures: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    """Counts of a user's own pictures and masks, and what of them teaches nothing, and why.

    title: of the data. pictures: rows of LABELLED; rows: of TRIPLETS.
    """
    accepted, rejected = rows[rows.accepted], rows[~rows.accepted]
    empty = pictures[pictures.entities.map(len) == 0]
    return {
        "source": title,
        "pictures": len(pictures),
        "pictures_accepted": int(accepted.key.nunique()),
        "pictures_without_mask": len(empty),
        "first_without_mask": list(empty.source[:SHOWN]),
        "not_in_vocabulary": pictures.strangers.explode().value_counts().sort_index().to_dict(),
        "masks": len(rows),
        "accepted": len(accepted),
        "accepted_by_class": accepted.entity.value_counts().sort_index().to_dict(),
        **rejections(rejected, REASONS),
    }


def rejections(rejected: pd.DataFrame, reasons: Iterable[str]) -> dict[str, Any]:
    """Counts of rejected rows by reason, and by reason and class. Of MARKED only where there are
    any: without marks the facts are those of a version that knew none."""
    counts = {reason: int((rejected.reason == reason).sum()) for reason in reasons}
    return {
        "rejected": {name: count for name, count in counts.items() if count or name != MARKED},
        "rejected_by_class": {
            reason: part.entity.value_counts().sort_index().to_dict()
            for reason, part in rejected.groupby("reason")
        },
    }
