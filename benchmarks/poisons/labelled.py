"""Poisons of the synthetic set and of the benchmark: label maps, leaks."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from benchmarks.poisons.asked import one_object, renamed, vocabulary_of
from benchmarks.poisons.drawn import (
    columns_of_others,
    cropped,
    itself,
    leaked,
    mirrored,
    picture_poisons,
    stronger,
)
from benchmarks.poisons.kind import (
    Change,
    Poison,
    Rng,
    direction,
    exchanged,
    moved,
    other_class,
    pick,
    pick_rows,
    put,
)
from ml.images.facts import picture_facts
from ml.images.overlays import IGNORED
from ml.images.png import decode_png, encode_png
from ml.images.run_lengths import decode_rle, encode_rle
from ml.pipeline.workspace import Workspace


def with_labels(
    rows: pd.DataFrame, places: np.ndarray, change: Callable[[np.ndarray, pd.Series], np.ndarray]
) -> pd.DataFrame:
    """Changes label maps, and states areas and ignored share as they then are."""
    names = [name for name in ("label", "areas", "ignored") if name in rows]
    columns, vocabulary = {name: list(rows[name]) for name in names}, vocabulary_of()
    for place in places:
        row = rows.iloc[place]
        label = change(decode_png(row["label"]), row).astype(np.uint8)
        areas = [float((label == vocabulary.label(e)).mean()) for e in row["entities"]]
        ignored = float((label == IGNORED).mean())
        for name, value in (("label", encode_png(label)), ("areas", areas), ("ignored", ignored)):
            if name in columns:
                columns[name][place] = value
    return rows.assign(**columns)


def some(change: Callable[[np.ndarray, pd.Series], np.ndarray]) -> Change:
    def poison(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
        return with_labels(rows, pick(len(rows), level, rng), change)

    return poison


def shifted(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """All label maps, by so many pixels in one direction."""
    way = direction(level, rng)
    return with_labels(rows, np.arange(len(rows)), lambda label, row: moved(label, *way))


def both_shifted(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Label maps and the masks beside them."""
    way = direction(level, rng)
    rows = with_labels(rows, np.arange(len(rows)), lambda label, row: moved(label, *way))
    rles = [[encode_rle(moved(decode_rle(rle), *way)) for rle in each] for each in rows["rles"]]
    return rows.assign(rles=rles)


def exchange(label: np.ndarray, a: int, b: int) -> np.ndarray:
    return np.where(label == a, b, np.where(label == b, a, label))


def two_classes(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Two classes exchanged in whole."""
    a, b = (int(i) for i in rng.choice(len(vocabulary_of().classes), 2, replace=False) + 1)
    return with_labels(rows, np.arange(len(rows)), lambda label, row: exchange(label, a, b))


def reordered(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Labels in the order seen, then unseen, instead of the alphabetical one."""
    vocabulary, table = vocabulary_of(), np.arange(256)
    for index, name in enumerate(vocabulary.seen + vocabulary.unseen):
        table[vocabulary.label(name)] = index + 1
    return with_labels(rows, np.arange(len(rows)), lambda label, row: table[label])


def noise(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """One thing of a picture is labelled as a random other class."""
    vocabulary = vocabulary_of()

    def change(label: np.ndarray, row: pd.Series) -> np.ndarray:
        name = row["entities"][rng.integers(len(row["entities"]))]
        other = other_class(name, vocabulary.classes, rng)
        return np.where(label == vocabulary.label(name), vocabulary.label(other), label)

    return with_labels(rows, pick(len(rows), level, rng), change)


def swapped(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """In pictures of two things each has the other's label, and the masks agree with that."""
    places = pick_rows(rows, rows["entities"].map(len) == 2, level, rng)
    vocabulary = vocabulary_of()
    rows = with_labels(
        rows,
        places,
        lambda label, row: exchange(label, *(vocabulary.label(e) for e in row["entities"])),
    )
    rles = [rle[::-1] if i in set(places) else rle for i, rle in enumerate(rows["rles"])]
    return rows.assign(rles=rles)


def frozen_noise(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """A grey level more in one pixel, in a share of the benchmark."""
    rows = rows.copy()
    for place in pick(len(rows), level, rng):
        picture = decode_png(rows["image"].iloc[place]).copy()
        picture[0, 0] ^= 1
        digest = picture_facts(picture)["sha256"]
        put(rows, place, {"image": encode_png(picture), "sha256": digest})
    return rows


def dominating(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """A share of the pictures is rejected, but for those that show one class."""
    name = vocabulary_of().classes[rng.integers(len(vocabulary_of().classes))]
    others = ~rows["entities"].map(lambda names: name in names) & rows["accepted"]
    hit = np.isin(np.arange(len(rows)), pick_rows(rows, others, level, rng))
    return rows.assign(
        accepted=rows["accepted"] & ~hit, reason=rows["reason"].mask(hit, "too uncertain")
    )


def class_gone(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Every picture of one class is rejected."""
    classes = vocabulary_of().classes
    name = classes[rng.integers(len(classes))]
    hit = rows["entities"].map(lambda names: name in names)
    return rows.assign(
        accepted=rows["accepted"] & ~hit, reason=rows["reason"].mask(hit, "too uncertain")
    )


def foreign(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Label maps and masks of other pictures of the same classes' number."""
    for count in (1, 2):
        same = pick_rows(rows, rows["entities"].map(len) == count, level, rng)
        rows = exchanged(rows, rng.permutation(same), ("label", "rles", "areas", "ignored"))
    return rows


def other_words(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Caption, word, entity and label of a share of the one-object pictures are another class's."""
    vocabulary = vocabulary_of()
    places = pick_rows(rows, one_object(rows, "synthetic"), level, rng)
    names = [other_class(rows["entities"].iloc[p][0], vocabulary.classes, rng) for p in places]
    olds = [rows["entities"].iloc[p][0] for p in places]
    old_of = dict(zip(rows["key"].iloc[places], olds, strict=True))
    return with_labels(
        renamed(rows, places, names),
        places,
        lambda label, row: np.where(
            label == vocabulary.label(old_of[row["key"]]),
            vocabulary.label(row["entities"][0]),
            label,
        ),
    )


SET = "synthetic_dataset"
POISONS = (
    *picture_poisons(SET),
    Poison("label maps shifted", SET, (1, 2, 4, 8), shifted, "px"),
    Poison("label maps and masks shifted", SET, (1, 2, 4, 8), both_shifted, "px"),
    Poison("two classes exchanged in whole", SET, (1,), two_classes, ""),
    Poison("classes in another order", SET, (1,), reordered, ""),
    Poison("label noise: another class's label", SET, (0.05, 0.1, 0.2), noise),
    Poison("label noise: caption and label of another class", SET, (0.05, 0.1, 0.2), other_words),
    Poison("label noise: two things' labels and masks swapped", SET, (0.05, 0.1, 0.2, 1), swapped,
           unseen="label map, masks and caption agree, and the set keeps no heat maps: only a "
                  "second model that knows all classes could tell, unseen ones too"),
    Poison("label maps and masks of other pictures", SET, (0.05, 0.2, 1), foreign),
    Poison("all background", SET, (0.0, 0.05, 1), some(lambda label, row: np.zeros_like(label))),
    Poison("all foreground", SET, (0.0, 0.05, 1), some(
        lambda label, row: np.full_like(label, vocabulary_of().label(row["entities"][0])))),
    Poison("label maps of half the size", SET, (0.0, 1), some(lambda label, row: label[::2, ::2])),
    Poison("wrong seeds", SET, (0.0, 1), columns_of_others("seed")),
    Poison("benchmark scenes leaked", SET, (0.0, 0.05), leaked(itself)),
    Poison("benchmark scenes leaked, 10 levels brighter", SET, (0.0, 0.05), leaked(stronger),
           unseen="brighter by more than 5 levels is another picture for the search; scenes were "
                  "never copied so by a model"),
    Poison("benchmark scenes leaked, mirrored", SET, (0.0, 0.05), leaked(mirrored)),
    Poison("benchmark scenes leaked, cropped by a fifth", SET, (0.0, 0.05), leaked(cropped),
           unseen="thumbnails of a crop are those of another picture"),
    Poison("imbalance: pictures of all classes but one rejected", SET, (0.5, 0.7, 0.9), dominating,
           unseen="a class up to four times as frequent as the others is within what filters do"),
    Poison("imbalance: a class is gone", SET, (1,), class_gone, ""),
    Poison("two classes exchanged in whole", "benchmark", (1,), two_classes, ""),
    Poison("label maps shifted", "benchmark", (1,), shifted, "px"),
    Poison("a grey level more in one pixel", "benchmark", (0.0, 0.05), frozen_noise),
)  # fmt: skip
