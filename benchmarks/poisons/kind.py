"""What a poison is, and what the kinds have in common."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ml.images.facts import picture_facts
from ml.images.png import decode_png, encode_png
from ml.images.run_lengths import decode_rle, encode_rle
from ml.pipeline.workspace import Workspace

Rng = np.random.Generator
Change = Callable[[pd.DataFrame, float, Rng, Workspace], pd.DataFrame]
"""(a stage's rows, the level, random numbers, the workspace) -> the poisoned rows."""
PICTURE = ("image", "latent", "latent_shape", "daam", "daam_shape", "width", "height", "mean",
           "std", "entropy", "sharpness", "dhash", "sha256")  # fmt: skip
"""What belongs to a picture and not to what was asked for."""
MASK = ("found", "score", "instances", "area", "x0", "y0", "x1", "y1", "rle")
"""What belongs to a mask."""


@dataclass(frozen=True)
class Poison:
    """One way to spoil a stage's rows. A level of 0 is a single row, 0.05 is 5 % of the rows."""

    name: str
    stage: str  # whose folder is spoiled
    levels: tuple[float, ...]
    change: Change
    unit: str = "%"  # "%" of the rows; else what the level counts; "" for no level
    then: str = ""  # a stage that is made again from the poisoned folder, and judged too
    unseen: str = ""  # why some levels can't be seen

    def level(self, value: float) -> str:
        """A level in words."""
        if not self.unit:
            return ""
        if self.unit != "%":
            return f"{value:g} {self.unit}"
        return f"{value:.0%}" if value else "one row"


def pick(count: int, share: float, rng: Rng) -> np.ndarray:
    """Positions of a share of so many rows, one at least, in order."""
    return np.sort(rng.choice(count, max(1, round(share * count)), replace=False))


def pick_rows(rows: pd.DataFrame, which: pd.Series, share: float, rng: Rng) -> np.ndarray:
    """Positions of a share of the rows for which `which` holds."""
    places = np.flatnonzero(which.to_numpy())
    return places[pick(len(places), share, rng)]


def exchanged(rows: pd.DataFrame, places: np.ndarray, columns: tuple[str, ...]) -> pd.DataFrame:
    """Each of these rows gets the columns of the next one of them, the last those of the first."""
    rows = rows.copy()
    for name in columns:
        values = rows[name].to_numpy(copy=True)
        values[places] = values[np.roll(places, -1)]
        rows[name] = values
    return rows


def put(rows: pd.DataFrame, place: int, values: dict[str, object]) -> None:
    """Sets some columns of one row, lists too."""
    for name, value in values.items():
        column = rows[name].to_numpy(copy=True)
        column[place] = value
        rows[name] = column


def with_pictures(
    rows: pd.DataFrame, places: np.ndarray, change: Callable[[np.ndarray], np.ndarray]
) -> pd.DataFrame:
    """Changes pictures, and states their facts as they then are."""
    rows = rows.copy()
    for place in places:
        picture = np.ascontiguousarray(change(decode_png(rows["image"].iloc[place])))
        put(rows, place, {"image": encode_png(picture), **picture_facts(picture)})
    return rows


def with_masks(
    rows: pd.DataFrame, places: np.ndarray, change: Callable[[np.ndarray], np.ndarray]
) -> pd.DataFrame:
    """Changes masks of `masks` or `triplets`, and states area and box as they then are."""
    columns = {n: list(rows[n]) for n in ("rle", "area", "x0", "y0", "x1", "y1") if n in rows}
    for place in places:
        if not columns["rle"][place]:
            continue
        mask = np.ascontiguousarray(change(decode_rle(columns["rle"][place])))
        x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
        box = [x[0], y[0], x[-1] + 1, y[-1] + 1] if len(x) else [0, 0, 0, 0]
        new = {"rle": encode_rle(mask), "area": float(mask.mean())}
        new |= {n: float(v) for n, v in zip(("x0", "y0", "x1", "y1"), box, strict=True)}
        for name in columns:
            columns[name][place] = new[name]
    return rows.assign(**columns)


def moved(array: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """An array (H,W) moved down and right; what comes in is 0."""
    out = np.zeros_like(array)
    height, width = array.shape
    out[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = array[
        max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)
    ]
    return out


def direction(pixels: float, rng: Rng) -> tuple[int, int]:
    """(dy,dx) of so many pixels: down, up, left, right or aslant."""
    signs = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x]
    y, x = signs[rng.integers(len(signs))]
    return int(y * pixels), int(x * pixels)


def other_class(name: str, classes: tuple[str, ...], rng: Rng) -> str:
    """A class drawn from the others."""
    rest = [each for each in classes if each != name]
    return rest[rng.integers(len(rest))]
