"""A scene's placed objects as pixels: the picture, and the mask of what each object shows.

Not here: where the objects stand (`placement.py`).
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from ml.drawn_world.placement import FLYING, SIDE, SIZE, SUPERSAMPLE, Placed
from ml.drawn_world.shapes_background import Background
from ml.drawn_world.shapes_pen import shade


def visible_masks(placed: Sequence[Placed], order: Sequence[int]) -> tuple[np.ndarray, list[float]]:
    """The visible masks, bool (n, 64, 64), and each object's visible share of its whole area.

    A pixel belongs to the object seen on more than half of its 9 drawn samples.
    """
    index = Image.new("L", (SIDE, SIDE))
    pen = ImageDraw.Draw(index)
    whole = [0] * len(placed)
    for i in order:
        alone = Image.new("L", (SIDE, SIDE)) if len(placed) > 1 else None
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


def render(
    picture: Image.Image,
    placed: Sequence[Placed],
    order: Sequence[int],
    names: Sequence[str],
    background: Background,
) -> np.ndarray:
    """Paint shadows and objects on the background and average 3x3 samples: uint8 (64, 64, 3)."""
    pen = ImageDraw.Draw(picture)
    if background.floor is not None:
        shadow = shade(background.floor, 0.84)
        for i in order:
            if names[i] not in FLYING:
                x0, _, x1, y1 = placed[i].box
                inset, deep = 0.06 * (x1 - x0), 2 * SUPERSAMPLE
                pen.ellipse((x0 + inset, y1 - 1.4 * deep, x1 - inset, y1 + 0.6 * deep), shadow)
    for i in order:
        for points, colour in placed[i].polygons:
            pen.polygon(points, colour)
    return np.asarray(picture.reduce(SUPERSAMPLE))
