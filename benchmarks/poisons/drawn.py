"""Poisons of the pictures, and of the latents and heat maps beside them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.poisons.kind import (
    PICTURE,
    Change,
    Poison,
    Rng,
    exchanged,
    pick,
    put,
    with_pictures,
)
from ml.images.facts import picture_facts
from ml.images.png import decode_png, encode_png
from ml.pipeline.workspace import Workspace
from ml.store.shards import read_shards

Draw = Callable[[np.ndarray, Rng], np.ndarray]
FEW = {
    "images": "2 % are allowed, since the filter of triplets rejects them one by one",
    "synthetic_dataset": "2 % are allowed: so few do not decide a training",
}


def pictures(draw: Draw) -> Change:
    """A share of the pictures becomes `draw(picture, rng)`."""

    def change(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
        places = pick(len(rows), level, rng)
        return with_pictures(rows, places, lambda picture: draw(picture, rng))

    return change


def blank(picture: np.ndarray, rng: Rng) -> np.ndarray:
    return np.full_like(picture, rng.integers(256, size=3, dtype=np.uint8))


def white_noise(picture: np.ndarray, rng: Rng) -> np.ndarray:
    return rng.integers(256, size=picture.shape, dtype=np.uint8)


def halved(picture: np.ndarray, rng: Rng) -> np.ndarray:
    return np.asarray(Image.fromarray(picture).reduce(2))


def altered(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """A little brighter, with a little noise."""
    noise = rng.normal(2, 1.5, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def mirrored(picture: np.ndarray, rng: Rng) -> np.ndarray:
    return picture[:, ::-1]


def copies(alter: Draw) -> Change:
    """A share of the pictures is an altered copy of another one, each of one of its own, and of as
    many words, so that heat maps fit."""

    def change(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
        out, columns, changed = rows.copy(), [name for name in PICTURE if name in rows], []
        for count in (1, 2):
            same = np.flatnonzero((rows["entities"].map(len) == count).to_numpy())
            chosen, rest = np.split(rng.permutation(same), [int(np.ceil(level * len(same)))])
            if not level and count == 1:  # one row in all
                chosen, rest = same[:1], same[1:]
            changed += list(chosen)
            for place, source in zip(chosen, rest, strict=False):
                put(out, place, {name: rows[name].iloc[source] for name in columns})
        return with_pictures(out, np.array(changed), lambda picture: alter(picture, rng))

    return change


def latents(value: float) -> Change:
    def change(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
        rows = rows.copy()
        for place in pick(len(rows), level, rng):
            latent = np.frombuffer(rows["latent"].iloc[place], "<f4").copy()
            latent[rng.integers(len(latent)) if np.isnan(value) else slice(None)] = value
            put(rows, place, {"latent": latent.tobytes()})
        return rows

    return change


def columns_of_others(*columns: str) -> Change:
    """A share of the rows exchanges some columns with each other."""

    def change(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
        places = rng.permutation(pick(len(rows), max(level, 2 / len(rows)), rng))
        return exchanged(rows, places, columns)

    return change


def of_others(*columns: str) -> Change:
    """A share of the pictures exchange columns with others of as many words."""

    def change(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
        for count in (1, 2):
            same = np.flatnonzero((rows["entities"].map(len) == count).to_numpy())
            rows = exchanged(rows, same[rng.permutation(pick(len(same), level, rng))], columns)
        return rows

    return change


def leaked(alter: Draw) -> Change:
    """Pictures are the benchmark's, altered; nobody flagged them."""

    def change(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
        real = read_shards(workspace.folder("benchmark"), ["image"])["image"]
        rows = rows.copy()
        for place in pick(len(rows), level, rng):
            scene = decode_png(real.iloc[rng.integers(len(real))])
            picture = np.ascontiguousarray(alter(scene, rng))
            put(rows, place, {"image": encode_png(picture), **picture_facts(picture)})
        return rows

    return change


def itself(picture: np.ndarray, rng: Rng) -> np.ndarray:
    return picture


def stronger(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """10 levels brighter."""
    return np.clip(picture.astype(np.int16) + 10, 0, 255).astype(np.uint8)


def cropped(picture: np.ndarray, rng: Rng) -> np.ndarray:
    """The middle 80 %, enlarged."""
    height, width = picture.shape[:2]
    box = (width // 10, height // 10, width - width // 10, height - height // 10)
    return np.asarray(Image.fromarray(picture).crop(box).resize((width, height)))


def picture_poisons(stage: str) -> tuple[Poison, ...]:
    """Of pictures, wherever they are."""
    return (
        Poison("pictures of one colour", stage, (0.01, 0.05, 0.2, 1), pictures(blank),
               unseen=FEW[stage]),
        Poison("pictures of white noise", stage, (0.01, 0.05, 0.2, 1), pictures(white_noise),
               unseen=FEW[stage]),
        Poison("pictures of half the size", stage, (0.0, 0.2, 1), pictures(halved)),
        Poison("exact duplicates", stage, (0.0, 0.05, 0.2), copies(itself)),
        Poison("near duplicates", stage, (0.05, 0.2, 0.5), copies(altered),
               unseen="noise changes the hash of a flat picture, and 15 % near hashes are allowed, "
                      "since different flat scenes may share one"),
        Poison("mirrored duplicates", stage, (0.2, 0.5), copies(mirrored),
               unseen="no check looks for them: a mirrored picture with its own mask is a usual "
                      "augmentation"),
    )  # fmt: skip


POISONS = (
    *picture_poisons("images"),
    Poison("latents with a NaN", "images", (0.0, 0.05), latents(np.nan)),
    Poison("latents of zeros", "images", (0.0, 0.05), latents(0.0)),
    Poison("wrong seeds", "images", (0.0, 0.05, 1), columns_of_others("seed")),
    Poison("captions of other pictures", "images", (0.0, 0.05, 1),
           columns_of_others("text", "entities", "words", "phrases")),
    Poison("pictures of other captions", "images", (0.05, 0.2, 1), of_others(*PICTURE),
           then="masks",
           unseen="pixels say nothing of words until the detector has looked; it does not find "
                  "what was asked, and the filter of triplets rejects each as `no_mask`"),
    Poison("heat maps of other pictures", "images", (0.05, 0.1, 0.2, 1),
           of_others("daam", "daam_shape"),
           then="masks",
           unseen="judged beside masks, which do not read them; other pictures' heat fits a mask "
                  "now and then, and 5 % misfits are allowed"),
)  # fmt: skip
