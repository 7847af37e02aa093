"""The drawn world: captioned 64x64 scenes of the 20 PASCAL VOC classes with exact masks.

Here: the scene, its seeds, and the order of its making. A scene is a pure function of its
arguments. Not here: where objects stand (`placement.py`), pixels and masks (`render.py`), what
classes look like (`shapes*.py`), the words (`captions.py`), the frozen benchmark (`benchmark.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ml.drawn_world.captions import compose, object_phrase
from ml.drawn_world.placement import SIDE, SIZE, choose_looks, place
from ml.drawn_world.render import render, visible_masks
from ml.drawn_world.shapes import DRAW, MAIN_COLOURS
from ml.drawn_world.shapes_background import choose_background, draw_background

CLASSES: tuple[str, ...] = tuple(DRAW)
"""VOC's names in VOC's order; label i + 1 is CLASSES[i], 0 is background."""

SEED_RANGES: dict[str, range] = {
    "train": range(0, 10_000_000),
    "eval": range(10_000_000, 20_000_000),
    "judge": range(20_000_000, 30_000_000),
    "real_bound": range(30_000_000, 40_000_000),
    "backbone": range(40_000_000, 50_000_000),
    "gallery": range(50_000_000, 60_000_000),
    "test": range(60_000_000, 70_000_000),
    "same_class": range(70_000_000, 80_000_000),
    "paper": range(80_000_000, 90_000_000),
    "benchmark": range(90_000_000, 90_000_400),
    "unlooked": range(100_000_000, 110_000_000),  # no setting was ever chosen by them
}
"""Purpose -> its seeds; disjoint, so that no scene ever serves two purposes."""

COUNT_SHARES = (0.5, 0.42, 0.08)
"""Share of scenes with one, two and three objects when neither count nor classes are asked for."""
MIN_VISIBLE_SHARE = 0.6
"""Of an object's area that no other object hides."""
MIN_VISIBLE_PIXELS = 60
"""Of each object."""
MAX_PLACEMENTS = 60
"""Tries at placing the objects; a second is needed in 0.4 % of scenes, a third in none of 4,000."""


@dataclass(frozen=True)
class Scene:
    """One drawn scene. Objects stand in caption order everywhere.

    image: uint8 (64, 64, 3) RGB.
    masks: bool (n, 64, 64), the visible part of each object; disjoint, none empty.
    classes: n VOC names.
    colours: the named main colour of each object, None where its class has no free colour.
    background: "grass", "sand", "road", "water", "snow", "indoors" or "plain".
    caption: at most 22 words.
    entities: the exact phrase of each object as it stands in the caption ("a red car").
    seed: the seed it was drawn from.
    """

    image: np.ndarray
    masks: np.ndarray
    classes: tuple[str, ...]
    colours: tuple[str | None, ...]
    background: str
    caption: str
    entities: tuple[str, ...]
    seed: int

    def label_map(self) -> np.ndarray:
        """uint8 (64, 64): 0 background, i + 1 for CLASSES[i]."""
        labels = np.zeros((SIZE, SIZE), np.uint8)
        for name, mask in zip(self.classes, self.masks, strict=True):
            labels[mask] = CLASSES.index(name) + 1
        return labels


def scene_seed(purpose: str, index: int) -> int:
    """The index-th seed of a purpose.

    Raises ValueError for an unknown purpose, IndexError for an index past its seeds.
    """
    if purpose not in SEED_RANGES:
        raise ValueError(
            f"unknown purpose {purpose!r}; expected one of {', '.join(SEED_RANGES)}: "
            "use one of these, or add a range to SEED_RANGES"
        )
    seeds = SEED_RANGES[purpose]
    if not 0 <= index < len(seeds):
        raise IndexError(
            f"index {index} is outside the {len(seeds)} seeds of {purpose!r}: "
            f"use an index from 0 to {len(seeds) - 1}"
        )
    return seeds[index]


def draw_scene(
    seed: int, *, n_objects: int | None = None, classes: Sequence[str] | None = None
) -> Scene:
    """Draw the scene of a seed.

    classes: draw exactly these, in any placement. A class may be named twice if it has colours to
    tell its objects apart: they then differ in colour, and the caption names it ("a red car left of
    a blue car"). n_objects: this many random distinct classes. Neither: one, two or three objects
    by COUNT_SHARES. The same arguments always give the same scene. Raises ValueError for other
    numbers or names.
    """
    _check(seed, n_objects, classes)
    wanted = tuple(classes) if classes is not None else ()
    key = [seed, n_objects or 0, *(CLASSES.index(name) + 1 for name in wanted)]
    rng = np.random.default_rng(key)
    if not wanted:
        wanted = _random_classes(rng, n_objects)
    picture, background = draw_background(rng, choose_background(rng, wanted), SIDE)
    looks = choose_looks(rng, wanted, background)
    shape_seeds = [int(s) for s in rng.integers(2**32, size=len(wanted))]
    for _ in range(MAX_PLACEMENTS):
        placed = place(rng, wanted, [rgb for _, rgb in looks], shape_seeds, background)
        order = sorted(range(len(placed)), key=lambda i: placed[i].box[3])
        masks, shares = visible_masks(placed, order)
        if min(shares) >= MIN_VISIBLE_SHARE and masks.sum((1, 2)).min() >= MIN_VISIBLE_PIXELS:
            break
    else:
        raise RuntimeError(
            f"no placement of {wanted} in {MAX_PLACEMENTS} tries keeps every object "
            f"{MIN_VISIBLE_SHARE:.0%} and {MIN_VISIBLE_PIXELS} pixels visible (seed {seed}): "
            "make the shape bolder or its scale larger"
        )
    image = render(picture, placed, order, wanted, background)
    return _describe(rng, seed, image, masks, wanted, [name for name, _ in looks], background.name)


def _check(seed: int, n_objects: int | None, classes: Sequence[str] | None) -> None:
    if seed < 0:
        raise ValueError(f"seed {seed} is negative: use 0 or more, best from scene_seed()")
    if n_objects is not None and n_objects not in (1, 2, 3):
        raise ValueError(f"n_objects is {n_objects}; expected 1, 2 or 3: use one of these")
    if classes is None:
        return
    if isinstance(classes, str):
        raise ValueError(f"classes is the string {classes!r}: put it in a list, [{classes!r}]")
    unknown = [name for name in classes if name not in DRAW]
    if unknown:
        raise ValueError(f"unknown classes {unknown}; expected names out of {', '.join(CLASSES)}")
    nameless = [n for n in classes if classes.count(n) > 1 and n not in MAIN_COLOURS]
    if nameless:
        raise ValueError(
            f"repeated class in {list(classes)}: {nameless[0]} has no colour that a caption could "
            f"tell two of them apart by; name it once, or repeat one of {', '.join(MAIN_COLOURS)}"
        )
    if not 1 <= len(classes) <= 3:
        raise ValueError(f"{len(classes)} classes; expected 1 to 3: name that many")
    if n_objects is not None and n_objects != len(classes):
        raise ValueError(
            f"n_objects is {n_objects} but {len(classes)} classes are named: leave n_objects out"
        )


def _random_classes(rng: np.random.Generator, n_objects: int | None) -> tuple[str, ...]:
    if n_objects is None:
        draw = rng.random()
        n_objects = 1 + (draw >= COUNT_SHARES[0]) + (draw >= COUNT_SHARES[0] + COUNT_SHARES[1])
    return tuple(CLASSES[i] for i in rng.permutation(len(CLASSES))[:n_objects])


def _describe(
    rng: np.random.Generator,
    seed: int,
    image: np.ndarray,
    masks: np.ndarray,
    names: tuple[str, ...],
    colours: list[str | None],
    background: str,
) -> Scene:
    """Put the objects in a random order and find the words for them."""
    order = rng.permutation(len(names))
    masks = masks[order]
    classes = tuple(names[i] for i in order)
    shown = tuple(colours[i] for i in order)
    entities = tuple(
        object_phrase(rng, n, c, name_colour=classes.count(n) > 1)
        for n, c in zip(classes, shown, strict=True)
    )
    columns = np.arange(SIZE)
    xs = [float((mask.sum(0) * columns).sum() / mask.sum()) for mask in masks]
    caption = compose(rng, entities, xs, background)
    return Scene(image, masks, classes, shown, background, caption, entities, seed)
