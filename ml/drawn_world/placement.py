"""Where the objects of a scene stand: its frame, their sizes, slots, colours and polygons.

Not here: what a class looks like (`shapes*.py`), or pixels (`render.py`).
"""

import math
from dataclasses import dataclass

import numpy as np

from ml.drawn_world.shapes import DRAW, main_colour
from ml.drawn_world.shapes_background import Background
from ml.drawn_world.shapes_pen import RGB, Pen

SIZE = 64
"""Side of a picture, in pixels."""
SUPERSAMPLE = 3
"""Drawn samples along a pixel's side; a picture is drawn three times as large and averaged."""
SIDE = SIZE * SUPERSAMPLE
"""Side of the drawing, in samples."""
MARGIN = SUPERSAMPLE
"""Objects keep one final pixel from the picture's edge, so that none is cut off."""

SCALES: dict[int, tuple[float, float]] = {1: (0.27, 0.44), 2: (0.19, 0.28), 3: (0.15, 0.2)}
"""Number of objects -> range of an object's half-extent as a share of the side."""
SLOTS: dict[int, tuple[float, ...]] = {1: (0.5,), 2: (0.27, 0.73), 3: (0.17, 0.5, 0.83)}
"""Number of objects -> where their centres lie from left to right, as shares of the side."""
CLOSE_SLOTS = (0.36, 0.64)
CLOSE_CHANCE = 0.2
"""Share of two-object scenes whose objects stand in CLOSE_SLOTS, where they hide part of each
other."""
FLYING = frozenset({"aeroplane"})
"""Classes that stand in the sky and throw no shadow."""


@dataclass(frozen=True)
class Placed:
    """One object in the frame of the 192x192 drawing.

    polygons: (x, y, x, y, ...) and colour of each. box: left, top, right, bottom of them all.
    """

    polygons: list[tuple[list[float], RGB]]
    box: tuple[float, float, float, float]


def choose_looks(
    rng: np.random.Generator, names: tuple[str, ...], background: Background
) -> list[tuple[str | None, RGB]]:
    """Each object's named main colour (None without one) and RGB; objects of one class differ."""
    looks: list[tuple[str | None, RGB]] = []
    for i, name in enumerate(names):
        taken = {looks[k][0] for k in range(i) if names[k] == name}
        look = main_colour(rng, name, background.colours)
        while look[0] in taken:
            look = main_colour(rng, name, background.colours)
        looks.append(look)
    return looks


def place(
    rng: np.random.Generator,
    names: tuple[str, ...],
    mains: list[RGB],
    shape_seeds: list[int],
    background: Background,
) -> list[Placed]:
    """Draw each object in unit coordinates and map it into the picture: one `Placed` a name.

    mains: the objects' main colours. shape_seeds: of their shapes, which stay the same when a
    placement is tried again.
    """
    n = len(names)
    slots = SLOTS[n]
    if n == 2 and rng.random() < CLOSE_CHANCE:
        slots = CLOSE_SLOTS
    low, high = SCALES[n]
    placed = []
    for i, slot in zip(rng.permutation(n), slots, strict=True):
        scale = low + (high - low) * rng.random()
        x = slot + (0.12 if n == 1 else 0.04) * (2 * rng.random() - 1)
        placed.append(
            (i, _transform(rng, names[i], mains[i], shape_seeds[i], scale, x, background))
        )
    return [item for _, item in sorted(placed, key=lambda pair: pair[0])]


def _transform(
    rng: np.random.Generator,
    name: str,
    main: RGB,
    shape_seed: int,
    scale: float,
    x: float,
    background: Background,
) -> Placed:
    """The polygons of one object: scaled, flipped, turned by up to 6 degrees, stretched by 12 %.

    Its foot stands on the ground below the horizon, or its middle near the picture's where there
    is no horizon; it is then moved to lie wholly inside the picture.
    """
    turn, stretch_x, stretch_y, height, flip = rng.random(5)
    pen = Pen(np.random.default_rng(shape_seed), main, scale * SIZE)
    DRAW[name](pen)
    points = np.array(pen.points)
    angle = math.radians(12 * turn - 6)
    kx = scale * SIDE * (0.88 + 0.24 * stretch_x)
    ky = scale * SIDE * (0.88 + 0.24 * stretch_y)
    c, s = math.cos(angle), math.sin(angle)
    xs, ys = points[:, 0] * (-kx if flip < 0.5 else kx), points[:, 1] * ky
    points = np.stack((c * xs - s * ys, s * xs + c * ys), axis=1)
    room = SIDE - 2 * MARGIN
    points *= min(1.0, room / float(np.ptp(points, axis=0).max()))
    lowest, highest = points.min(0), points.max(0)
    tall = highest[1] - lowest[1]
    shift_x = x * SIDE - (lowest[0] + highest[0]) / 2
    if background.horizon is None:
        bottom = (0.5 + 0.2 * (height - 0.5)) * SIDE + tall / 2
    elif name in FLYING:
        bottom = (0.34 + 0.16 * height) * SIDE + tall / 2
    else:
        top_ground = background.horizon * SIDE + 12
        bottom = max(top_ground, (0.72 + 0.2 * height) * SIDE)
    shift_y = bottom - highest[1]
    shift_x = min(max(shift_x, MARGIN - lowest[0]), SIDE - MARGIN - highest[0])
    shift_y = min(max(shift_y, MARGIN - lowest[1]), SIDE - MARGIN - highest[1])
    points += (shift_x, shift_y)
    # Two decimals: the last bits of cos() differ between machines, the drawn samples must not.
    flat = points.round(2).ravel().tolist()
    polygons, start = [], 0
    for length, colour in zip(pen.lengths, pen.colours, strict=True):
        polygons.append((flat[start : start + 2 * length], colour))
        start += 2 * length
    box = (
        lowest[0] + shift_x, lowest[1] + shift_y, highest[0] + shift_x, highest[1] + shift_y,
    )  # fmt: skip
    return Placed(polygons, box)
