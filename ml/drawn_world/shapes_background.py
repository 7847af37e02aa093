"""What stands behind the objects: sky over a ground, a room, or a plain gradient.

Here: the colours and layout of backgrounds, and which backgrounds suit a class.
Not here: objects, or the words a caption has for a background (`captions.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageDraw

from ml.drawn_world.shapes_pen import RGB, shade

T = TypeVar("T")

SKIES: tuple[tuple[RGB, RGB], ...] = (
    ((142, 200, 240), (208, 234, 250)),
    ((168, 212, 240), (232, 242, 246)),
    ((250, 200, 164), (255, 236, 206)),
    ((178, 184, 226), (232, 222, 240)),
)
"""(zenith, horizon): noon, haze, sunset, dusk."""

GROUNDS: dict[str, RGB] = {
    "grass": (144, 200, 112),
    "sand": (240, 218, 162),
    "road": (150, 154, 166),
    "water": (92, 168, 214),
    "snow": (222, 234, 246),
}
WALLS: tuple[RGB, ...] = (
    (244, 230, 208), (206, 228, 214), (224, 214, 234), (248, 218, 202), (206, 224, 238),
)  # fmt: skip
FLOORS: tuple[RGB, ...] = ((206, 164, 122), (176, 184, 196), (186, 140, 112))
PLAINS: tuple[RGB, ...] = (*WALLS, (250, 236, 190), (196, 226, 230))

_OUTDOORS = ("grass", "grass", "sand", "road", "snow", "plain")
_STREET = ("road", "road", "grass", "sand", "snow", "plain")
_HOME = ("indoors", "indoors", "indoors", "plain", "grass")

SUITABLE: dict[str, tuple[str, ...]] = {
    "aeroplane": ("plain", "grass", "sand", "road", "water", "snow"),
    "bicycle": _STREET,
    "bird": ("grass", "sand", "road", "snow", "plain"),
    "boat": ("water", "water", "water", "sand", "plain"),
    "bottle": _HOME,
    "bus": _STREET,
    "car": _STREET,
    "cat": ("indoors", "indoors", "grass", "road", "plain"),
    "chair": _HOME,
    "cow": ("grass", "grass", "sand", "road", "plain"),
    "diningtable": _HOME,
    "dog": ("grass", "indoors", "sand", "snow", "road", "plain"),
    "horse": _OUTDOORS,
    "motorbike": _STREET,
    "person": ("grass", "sand", "road", "snow", "indoors", "plain"),
    "pottedplant": _HOME,
    "sheep": ("grass", "grass", "sand", "road"),
    "sofa": _HOME,
    "train": ("grass", "grass", "sand", "snow", "plain"),
    "tvmonitor": _HOME,
}
"""Backgrounds a class is seen on (repeated = likelier); several share each, so that a background
never names a class."""

ANY_CHANCE = 0.1
"""Share of scenes on a random ground: a sofa on a road keeps classes independent of places."""


@dataclass(frozen=True)
class Background:
    """One drawn background.

    name: key of GROUNDS, or "indoors" or "plain".
    horizon: height of the ground's edge, 0 (top) to 1 (bottom); None for a plain one.
    colours: what a main colour must stand out from.
    floor: colour of the ground, from which shadows are mixed; None for a plain one.
    """

    name: str
    horizon: float | None
    colours: tuple[RGB, ...]
    floor: RGB | None


def choose_background(rng: np.random.Generator, classes: tuple[str, ...]) -> str:
    """A background that suits all classes, else one that suits one of them; sometimes a random
    one."""
    if rng.random() < ANY_CHANCE:
        options = (*GROUNDS, "indoors", "plain")
    else:
        first = classes[int(rng.random() * len(classes))]
        options = SUITABLE[first]
        shared = tuple(o for o in options if all(o in SUITABLE[name] for name in classes))
        options = shared or options
    return options[int(rng.random() * len(options))]


def _wobble(rng: np.random.Generator, colour: RGB) -> RGB:
    moved = zip(colour, rng.random(3) * 14 - 7, strict=True)
    red, green, blue = (min(255, max(0, round(channel + by))) for channel, by in moved)
    return red, green, blue


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.random() * len(options))]


def draw_background(
    rng: np.random.Generator, name: str, side: int
) -> tuple[Image.Image, Background]:
    """Draw a background on a square of `side` pixels: row gradients and at most three flat shapes.

    Returns the RGB picture and its description.
    """
    horizon: float | None = None
    floor: RGB | None = None
    if name == "plain":
        top = _wobble(rng, _pick(rng, (*PLAINS, SKIES[0][0], SKIES[1][0])))
        bottom = shade(top, 1.45) if rng.random() < 0.5 else shade(top, 0.9)
        behind = (top, bottom)
    else:
        horizon = 0.46 + 0.16 * rng.random()
        if name == "indoors":
            top = _wobble(rng, _pick(rng, WALLS))
            bottom = shade(top, 0.96)
            horizon += 0.1
            floor = _wobble(rng, _pick(rng, FLOORS))
        else:
            top, bottom = (_wobble(rng, colour) for colour in _pick(rng, SKIES))
            floor = _wobble(rng, GROUNDS[name])
        behind = (bottom, floor)
    edge = side if horizon is None else round(horizon * side)
    rows = np.empty((side, 3), np.float32)
    rows[:edge] = np.linspace(top, bottom, edge)
    if floor is not None:
        rows[edge:] = np.linspace(floor, shade(floor, 0.92), side - edge)
    pixels = np.broadcast_to((rows + 0.5).astype(np.uint8)[:, None], (side, side, 3))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if floor is not None:
        _scenery(rng, ImageDraw.Draw(picture), name, side, edge, floor)
    return picture, Background(name, horizon, behind, floor)


def _scenery(
    rng: np.random.Generator, pen: ImageDraw.ImageDraw, name: str, side: int, edge: int, floor: RGB
) -> None:
    """A hill, a sun, the sea behind a beach, the verge of a road, the skirting of a room."""
    if name == "indoors":
        pen.rectangle((0, edge - side // 26, side, edge - 1), shade(floor, 0.82))
        return
    if rng.random() < 0.2:
        x, y, r = side * (0.12 + 0.76 * rng.random()), side * 0.13, side * 0.075
        pen.ellipse((x - r, y - r, x + r, y + r), (255, 240, 178))
    if rng.random() < 0.5:
        hill = shade(floor, 0.86) if name in ("grass", "snow") else (158, 196, 166)
        x, w = side * rng.random(), side * (0.5 + 0.3 * rng.random())
        h = side * (0.08 + 0.1 * rng.random())
        pen.ellipse((x - w, edge - h, x + w, edge + h), hill)
        rows_below = (0, edge, side, edge + int(h) + 1)
        pen.rectangle(rows_below, floor)
    if name == "sand":
        pen.rectangle((0, edge - side // 11, side, edge - 1), (118, 186, 220))
    elif name == "road":
        pen.rectangle((0, edge - 1, side, edge + side // 13), (154, 202, 122))
