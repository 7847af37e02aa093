"""Where the objects of a scene stand: sizes, slots, who hides whom."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ml.drawn_world.shapes import DRAW, main_colour
from ml.drawn_world.shapes_background import Background
from ml.drawn_world.shapes_pen import RGB, Pen

SIZE = 64


SUPERSAMPLE = 3


SCALES: dict[int, tuple[float, float]] = {1: (0.27, 0.44), 2: (0.19, 0.28), 3: (0.15, 0.2)}
"""Number of objects -> range of an object's half-extent as a share of the side."""


SLOTS: dict[int, tuple[float, ...]] = {1: (0.5,), 2: (0.27, 0.73), 3: (0.17, 0.5, 0.83)}


CLOSE_SLOTS = (0.36, 0.64)


CLOSE_CHANCE = 0.2
"""Share of two-object scenes whose objects stand close enough to hide part of each other."""


FLYING = frozenset({"aeroplane"})


MIN_VISIBLE_SHARE = 0.6


MIN_VISIBLE_PIXELS = 60


MAX_PLACEMENTS = 60
"""Tries at placing the objects; a second is needed in 0.4 % of scenes, a third in none of 4,000."""


_SIDE = SIZE * SUPERSAMPLE


MARGIN = SUPERSAMPLE
"""Objects keep one final pixel from the picture's edge, so that none is cut off."""


@dataclass(frozen=True)
class _Placed:
    """One object in the frame of the 192x192 drawing: its polygons and its bounding box."""

    polygons: list[tuple[list[float], RGB]]
    box: tuple[float, float, float, float]


def _looks(
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


def _place(
    rng: np.random.Generator,
    names: tuple[str, ...],
    mains: list[RGB],
    shape_seeds: list[int],
    background: Background,
) -> list[_Placed]:
    """Draw each object in unit coordinates and map it into the picture."""
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
) -> _Placed:
    """The polygons of one object: scaled, flipped, turned by up to 6 degrees, stretched by 12 %.

    Its foot stands on the ground below the horizon, or its middle near the picture's where there
    is no horizon; it is then moved to lie wholly inside the picture.
    """
    turn, stretch_x, stretch_y, height, flip = rng.random(5)
    pen = Pen(np.random.default_rng(shape_seed), main, scale * SIZE)
    DRAW[name](pen)
    points = np.array(pen.points)
    angle = math.radians(12 * turn - 6)
    kx = scale * _SIDE * (0.88 + 0.24 * stretch_x)
    ky = scale * _SIDE * (0.88 + 0.24 * stretch_y)
    c, s = math.cos(angle), math.sin(angle)
    xs, ys = points[:, 0] * (-kx if flip < 0.5 else kx), points[:, 1] * ky
    points = np.stack((c * xs - s * ys, s * xs + c * ys), axis=1)
    room = _SIDE - 2 * MARGIN
    points *= min(1.0, room / float(np.ptp(points, axis=0).max()))
    lowest, highest = points.min(0), points.max(0)
    tall = highest[1] - lowest[1]
    shift_x = x * _SIDE - (lowest[0] + highest[0]) / 2
    if background.horizon is None:
        bottom = (0.5 + 0.2 * (height - 0.5)) * _SIDE + tall / 2
    elif name in FLYING:
        bottom = (0.34 + 0.16 * height) * _SIDE + tall / 2
    else:
        top_ground = background.horizon * _SIDE + 12
        bottom = max(top_ground, (0.72 + 0.2 * height) * _SIDE)
    shift_y = bottom - highest[1]
    shift_x = min(max(shift_x, MARGIN - lowest[0]), _SIDE - MARGIN - highest[0])
    shift_y = min(max(shift_y, MARGIN - lowest[1]), _SIDE - MARGIN - highest[1])
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
    return _Placed(polygons, box)


def _masks(placed: list[_Placed], order: list[int]) -> tuple[np.ndarray, list[float]]:
    """The visible masks, bool (n, 64, 64), and each object's visible share of its whole area.

    A pixel belongs to the object seen on more than half of its 9 drawn samples.
    """
    index = Image.new("L", (_SIDE, _SIDE))
    pen = ImageDraw.Draw(index)
    whole = [0] * len(placed)
    for i in order:
        alone = Image.new("L", (_SIDE, _SIDE)) if len(placed) > 1 else None
        alone_pen = ImageDraw.Draw(alone) if alone is not None else None
        for points, _ in placed[i].polygons:
            pen.polygon(points, i + 1)
            if alone_pen is not None:
                alone_pen.polygon(points, 1)
        whole[i] = alone.histogram()[1] if alone is not None else 0
    seen = index.histogram()
    shares = [seen[i + 1] / whole[i] if whole[i] else 1.0 for i in range(len(placed))]
    samples = np.asarray(index).reshape(SIZE, SUPERSAMPLE, SIZE, SUPERSAMPLE)
    counts = [(samples == i + 1).sum((1, 3), dtype=np.uint8) for i in range(len(placed))]
    return np.stack(counts) > SUPERSAMPLE**2 // 2, shares
