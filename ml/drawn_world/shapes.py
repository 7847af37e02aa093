"""The 20 classes of the drawn world: which function draws each, and which colours it comes in.

Not here: the shapes themselves (`shapes_vehicles.py`, `shapes_living.py`, `shapes_home.py`).
"""

from collections.abc import Callable

import numpy as np

from ml.drawn_world import shapes_home as home
from ml.drawn_world import shapes_living as living
from ml.drawn_world import shapes_vehicles as vehicles
from ml.drawn_world.shapes_pen import NAMED_COLOURS, RGB, Pen, jitter_colour

DRAW: dict[str, Callable[[Pen], None]] = {
    "aeroplane": vehicles.aeroplane,
    "bicycle": vehicles.bicycle,
    "bird": living.bird,
    "boat": vehicles.boat,
    "bottle": home.bottle,
    "bus": vehicles.bus,
    "car": vehicles.car,
    "cat": living.cat,
    "chair": home.chair,
    "cow": living.cow,
    "diningtable": home.diningtable,
    "dog": living.dog,
    "horse": living.horse,
    "motorbike": vehicles.motorbike,
    "person": living.person,
    "pottedplant": home.pottedplant,
    "sheep": living.sheep,
    "sofa": home.sofa,
    "train": vehicles.train,
    "tvmonitor": home.tvmonitor,
}
"""VOC's 20 classes in VOC's order; label i + 1 is the i-th key."""

_ANY = tuple(NAMED_COLOURS)
_PAINT = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "grey")

MAIN_COLOURS: dict[str, tuple[str, ...]] = {
    "aeroplane": ("white", "white", "red", "orange", "yellow", "blue", "grey", "pink"),
    "bicycle": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    "bird": ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black", "grey"),
    "boat": ("red", "orange", "yellow", "green", "blue", "purple", "brown", "white", "black"),
    "bottle": ("red", "orange", "green", "blue", "purple", "pink", "brown", "white", "black"),
    "bus": _PAINT,
    "car": _PAINT,
    "cat": ("orange", "orange", "brown", "white", "black", "grey"),
    "chair": _ANY,
    "diningtable": ("brown", "brown", "orange", "white", "grey"),
    "dog": ("brown", "brown", "orange", "white", "black", "grey"),
    "horse": ("brown", "brown", "orange", "white", "black", "grey"),
    "motorbike": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    "sofa": _ANY,
    "train": ("red", "orange", "yellow", "green", "blue", "purple", "brown", "black"),
}
"""Named colours a class is painted in (repeated = likelier). A class that is absent has no colour
that a caption could name: a cow is patched, and nobody calls a person in a red shirt red."""

MIN_CONTRAST = 60.0
"""Least RGB distance of a main colour from the ground and the sky behind: below it a green car
melts into the grass (grass is 45 to 60 from the named green)."""


def main_colour(
    rng: np.random.Generator, name: str, behind: tuple[RGB, ...]
) -> tuple[str | None, RGB]:
    """Draw a main colour for a class that stands out from the colours behind it.

    Returns the colour's name (None where the class has none to name) and the RGB drawn.
    """
    options = MAIN_COLOURS.get(name, _ANY)
    for _ in range(6):
        colour_name = options[int(rng.random() * len(options))]
        rgb = jitter_colour(rng, NAMED_COLOURS[colour_name])
        if all(
            sum((a - b) ** 2 for a, b in zip(rgb, other, strict=True)) > MIN_CONTRAST**2
            for other in behind
        ):
            break
    return (colour_name if name in MAIN_COLOURS else None), rgb
