"""The pen every class of the drawn world is drawn with, and its colours.

Here: `Pen` (collects filled polygons in unit coordinates), the named colours and colour arithmetic.
Not here: what a class looks like (`shapes_*.py`), where it stands in the picture (`placement.py`).
"""

import colorsys
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np

RGB = tuple[int, int, int]
Point = tuple[float, float]
T = TypeVar("T")

NAMED_COLOURS: dict[str, RGB] = {
    "red": (212, 64, 62),
    "orange": (243, 143, 52),
    "yellow": (248, 207, 74),
    "green": (70, 158, 92),
    "blue": (60, 118, 200),
    "purple": (136, 92, 184),
    "pink": (242, 140, 178),
    "brown": (140, 92, 60),
    "white": (247, 245, 240),
    "black": (54, 54, 64),
    "grey": (152, 157, 166),
}
"""One flat-illustration palette; every named main colour is one of these, slightly jittered."""

INK: RGB = (46, 48, 60)
CREAM: RGB = (252, 244, 226)
GLASS: RGB = (186, 224, 240)
METAL: RGB = (196, 202, 210)
WOOD: RGB = (168, 112, 70)

# 18 corners: under 0.3 px from a true circle of the largest radius drawn (14 px), 40 % of the
# cost of 48 corners.
_CIRCLE = tuple((math.cos(k * math.tau / 18), math.sin(k * math.tau / 18)) for k in range(18))
_QUARTER = tuple((math.cos(k * math.tau / 16), math.sin(k * math.tau / 16)) for k in range(5))


def jitter_colour(rng: np.random.Generator, colour: RGB) -> RGB:
    """The colour moved a little in HSV: it keeps its name. Hue +-1.5 %, the others +-5 %."""
    hue, saturation, value = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    d_hue, d_saturation, d_value = rng.random(3) * 2 - 1
    red, green, blue = colorsys.hsv_to_rgb(
        (hue + 0.015 * d_hue) % 1.0,
        min(max(saturation * (1 + 0.08 * d_saturation), 0.0), 1.0),
        min(max(value * (1 + 0.05 * d_value), 0.0), 1.0),
    )
    return round(255 * red), round(255 * green), round(255 * blue)


def shade(colour: RGB, factor: float) -> RGB:
    """Darker for factor < 1 (multiplied), lighter for factor > 1 (moved towards white)."""
    red, green, blue = (
        round(channel * factor) if factor <= 1 else round(channel + (255 - channel) * (factor - 1))
        for channel in colour
    )
    return red, green, blue


def luminance(colour: RGB) -> float:
    """Rough brightness, 0 to 255."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


class Pen:
    """Collects polygons of one object. Unit frame: x right, y down, the object in [-1, 1]^2.

    `main` is the colour a caption may name. `thin` is the unit width of 3 final pixels, the
    thinnest stroke drawn; `dot` the unit radius of the smallest dot (2.4 pixels across).
    """

    def __init__(self, rng: np.random.Generator, main: RGB, pixels_per_unit: float):
        self.rng = rng
        self.main = main
        self.thin = 3.0 / pixels_per_unit
        self.dot = 1.2 / pixels_per_unit
        self.points: list[Point] = []
        self.lengths: list[int] = []
        self.colours: list[RGB] = []

    def vary(self, low: float, high: float) -> float:
        """A uniform draw from low to high."""
        return low + (high - low) * self.rng.random()

    def pick(self, options: Sequence[T]) -> T:
        """One of the options, all equally likely."""
        return options[int(self.rng.random() * len(options))]

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    def poly(self, colour: RGB, *points: Point) -> None:
        """A filled polygon."""
        self.points.extend(points)
        self.lengths.append(len(points))
        self.colours.append(colour)

    def ellipse(
        self, colour: RGB, x: float, y: float, rx: float, ry: float, degrees: float = 0.0
    ) -> None:
        """A filled ellipse about (x, y), turned clockwise by degrees."""
        if degrees:
            c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            points = [
                (x + rx * u * c - ry * v * s, y + rx * u * s + ry * v * c) for u, v in _CIRCLE
            ]
        else:
            points = [(x + rx * u, y + ry * v) for u, v in _CIRCLE]
        self.poly(colour, *points)

    def disc(self, colour: RGB, x: float, y: float, r: float) -> None:
        self.ellipse(colour, x, y, r, r)

    def ring(self, colour: RGB, x: float, y: float, r: float, width: float) -> None:
        """A ring whose hole shows what is behind: one keyhole polygon, filled even-odd."""
        width = max(width, self.thin)
        inner = r - width
        outer_points = [(x + r * u, y + r * v) for u, v in (*_CIRCLE, _CIRCLE[0])]
        inner_points = [(x + inner * u, y + inner * v) for u, v in (*_CIRCLE, _CIRCLE[0])]
        self.poly(colour, *outer_points, *reversed(inner_points))

    def box(self, colour: RGB, x0: float, y0: float, x1: float, y1: float, r: float = 0.0) -> None:
        """A rectangle with corners rounded by r."""
        if r <= 0:
            self.poly(colour, (x0, y0), (x1, y0), (x1, y1), (x0, y1))
            return
        r = min(r, (x1 - x0) / 2, (y1 - y0) / 2)
        points = [(x1 - r + r * c, y1 - r + r * s) for c, s in _QUARTER]
        points += [(x0 + r - r * s, y1 - r + r * c) for c, s in _QUARTER]
        points += [(x0 + r - r * c, y0 + r - r * s) for c, s in _QUARTER]
        points += [(x1 - r + r * s, y0 + r - r * c) for c, s in _QUARTER]
        self.poly(colour, *points)

    def line(self, colour: RGB, width: float, *points: Point) -> None:
        """A stroke with round ends through the points, never thinner than 3 pixels."""
        half = max(width, self.thin) / 2
        for (x0, y0), (x1, y1) in pairwise(points):
            length = math.hypot(x1 - x0, y1 - y0) or 1e-6
            c, s = (x1 - x0) / length * half, (y1 - y0) / length * half
            self.poly(
                colour,
                (x0 + s, y0 - c),
                (x1 + s, y1 - c),
                (x1 + 0.7 * (s + c), y1 + 0.7 * (s - c)),
                (x1 + c, y1 + s),
                (x1 + 0.7 * (c - s), y1 + 0.7 * (s + c)),
                (x1 - s, y1 + c),
                (x0 - s, y0 + c),
                (x0 - 0.7 * (s + c), y0 + 0.7 * (c - s)),
                (x0 - c, y0 - s),
                (x0 + 0.7 * (s - c), y0 - 0.7 * (s + c)),
            )
