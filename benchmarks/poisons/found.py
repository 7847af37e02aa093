"""Poisons of masks and triplets."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.poisons.asked import vocabulary_of
from benchmarks.poisons.kind import (
    MASK,
    Change,
    Poison,
    Rng,
    direction,
    exchanged,
    moved,
    other_class,
    pick_rows,
    put,
    with_masks,
)
from ml.pipeline.workspace import Workspace

Redraw = Callable[[np.ndarray], np.ndarray]


def masks(redraw: Redraw) -> Change:
    """A share of the masks becomes `redraw(mask)`."""

    def change(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
        return with_masks(rows, pick_rows(rows, rows["rle"] != "", level, rng), redraw)

    return change


def coarse(factor: int) -> Redraw:
    """Enlarged from a mask that many times smaller."""
    return lambda mask: np.repeat(
        np.repeat(mask[::factor, ::factor], factor, 0), factor, 1
    )[: mask.shape[0], : mask.shape[1]]  # fmt: skip


def smooth(mask: np.ndarray) -> np.ndarray:
    """Enlarged four times, smoothly."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    small = image.resize([side // 4 for side in image.size], Image.Resampling.BOX)
    return np.asarray(small.resize(image.size, Image.Resampling.BICUBIC)) >= 128


def shifted(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """All masks, by so many pixels in one direction."""
    way = direction(level, rng)
    return with_masks(rows, np.arange(len(rows)), lambda mask: moved(mask, *way))


def some_shifted(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """A share of the masks, by 4 pixels in one direction."""
    way, places = direction(4, rng), pick_rows(rows, rows["rle"] != "", level, rng)
    return with_masks(rows, places, lambda mask: moved(mask, *way))


def strewn(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """All masks, by so many pixels, each in a direction of its own."""
    return with_masks(
        rows, np.arange(len(rows)), lambda mask: moved(mask, *direction(level, rng))
    )  # fmt: skip


def swapped_within(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace):
    """The two masks of a picture exchanged, in a share of the pictures of two things found."""
    pairs = [p for p in rows.groupby("key").indices.values() if len(p) == 2]
    pairs = [p for p in pairs if rows["rle"].iloc[p[0]] and rows["rle"].iloc[p[1]]]
    for index in rng.choice(len(pairs), max(1, round(level * len(pairs))), replace=False):
        rows = exchanged(rows, pairs[index], [n for n in MASK if n in rows])
    return rows


def two_classes(rng: Rng) -> tuple[str, str]:
    a, b = rng.choice(len(vocabulary_of().seen), 2, replace=False)
    return vocabulary_of().seen[a], vocabulary_of().seen[b]


def renamed(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Two classes exchanged in whole, entity and word."""
    a, b = two_classes(rng)
    words = vocabulary_of().words
    names = {a: b, b: a}
    entities = [names.get(name, name) for name in rows["entity"]]
    new = [
        words[name][0] if name != old else word
        for name, old, word in zip(entities, rows["entity"], rows["word"], strict=True)
    ]
    return rows.assign(entity=entities, word=new)


def masks_of_class(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace):
    """Two classes' masks exchanged in whole, from picture to picture; the names stay."""
    a, b = two_classes(rng)
    of_a = np.flatnonzero(((rows["entity"] == a) & (rows["rle"] != "")).to_numpy())
    of_b = np.flatnonzero(((rows["entity"] == b) & (rows["rle"] != "")).to_numpy())
    for pair in zip(rng.permutation(of_a), rng.permutation(of_b), strict=False):
        rows = exchanged(rows, np.array(pair), [n for n in MASK if n in rows])
    return rows


def noise(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Entity and word of a share of the rows are another class's."""
    rows, words = rows.copy(), vocabulary_of().words
    for place in pick_rows(rows, rows["purpose"] == "train", level, rng):
        name = other_class(rows["entity"].iloc[place], vocabulary_of().seen, rng)
        put(rows, place, {"entity": name, "word": words[name][0]})
    return rows


def of_others(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """A share of the rows exchanges masks with each other."""
    places = rng.permutation(pick_rows(rows, rows["rle"] != "", level, rng))
    return exchanged(rows, places, [name for name in MASK if name in rows])


def without_masks(rows: pd.DataFrame, places: np.ndarray) -> pd.DataFrame:
    """Not found: no mask, score and box, as the stage itself writes that."""
    hit = np.isin(np.arange(len(rows)), places)
    nothing = {"found": False, "rle": "", "instances": 0}
    return rows.assign(**{name: rows[name].mask(hit, nothing.get(name, 0.0)) for name in MASK})


def lost(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    return without_masks(rows, pick_rows(rows, rows["purpose"] == "train", level, rng))


def class_lost(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """A share of one seen class's rows is not found."""
    name = vocabulary_of().seen[rng.integers(len(vocabulary_of().seen))]
    own = (rows["entity"] == name) & rows["found"]
    return without_masks(rows, pick_rows(rows, own, level, rng))


def next_keys(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Every picture's masks stand under the next picture's key."""
    keys = list(dict.fromkeys(rows["key"]))
    return rows.assign(key=rows["key"].map(dict(zip(keys, keys[1:] + keys[:1], strict=True))))


def dropped(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    places = pick_rows(rows, rows["rle"] != "", level, rng)
    return rows.drop(index=rows.index[places])


POISONS = (
    Poison("all masks shifted", "masks", (1, 2, 4, 8, 16), shifted, "px"),
    Poison("some masks shifted by 4 px", "masks", (0.05, 0.1, 0.2), some_shifted,
           unseen="sound masks fit another place now and then, so that 5 % may share an offset"),
    Poison("all masks shifted, each its own way", "masks", (1, 2, 4, 8), strewn, "px",
           unseen="a pixel is within the bound of one that every outline has"),
    Poison("masks swapped within pictures of two", "masks", (0.05, 0.1, 0.2, 1), swapped_within,
           unseen="heat of one word reaches the other's thing in 1 % of the sound masks here, in "
                  "more of larger models: 10 % are allowed"),
    Poison("two classes exchanged in whole: names", "masks", (1,), renamed, ""),
    Poison("two classes exchanged in whole: masks", "masks", (1,), masks_of_class, "",
           unseen="the things of two classes may lie alike"),
    Poison("label noise: another class's name", "masks", (0.05, 0.1, 0.2), noise),
    Poison("label noise: masks of other pictures", "masks", (0.05, 0.1, 0.2, 1), of_others,
           unseen="a foreign mask lies on the heat by chance now and then, since things stand "
                  "near the middle; 5 % misfits are allowed"),
    Poison("not found", "masks", (0.05, 0.2, 0.6, 1), lost,
           unseen="a detector may miss up to half; each is rejected as `no_mask`"),
    Poison("found, all background", "masks", (0.01, 0.05, 0.2, 1),
           masks(np.zeros_like),
           unseen="2 % are allowed, since the filter of triplets rejects them as `too_small`"),
    Poison("found, all foreground", "masks", (0.01, 0.05, 0.2, 1), masks(np.ones_like),
           unseen="2 % are allowed, since the filter of triplets rejects them as `too_large`"),
    Poison("wrong polarity", "masks", (0.01, 0.05, 0.2, 1), masks(np.logical_not),
           unseen="5 % misfits are allowed; the filter of triplets rejects most as `too_large`"),
    Poison("coarse masks, enlarged from a half", "masks", (0.05, 0.2, 1), masks(coarse(2)),
           unseen="10 % are allowed"),
    Poison("coarse masks, enlarged from a quarter", "masks", (0.05, 0.2, 1), masks(coarse(4)),
           unseen="10 % are allowed"),
    Poison("coarse masks, enlarged smoothly", "masks", (1,), masks(smooth),
           unseen="blurred outlines are also those of a good detector on soft things"),
    Poison("masks of half the size", "masks", (0.0, 0.2, 1), masks(lambda mask: mask[::2, ::2])),
    Poison("masks under the next picture's key", "masks", (1,), next_keys, ""),
    Poison("rows missing", "masks", (0.0, 0.05), dropped),
    Poison("imbalance: a class is not found", "masks", (0.5, 0.9, 1), class_lost,
           unseen="a class may be that hard; a tenth of the even share must be there"),
)  # fmt: skip
