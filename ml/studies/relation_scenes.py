"""Study 6's scenes: two objects of one class, and words that mean one of them.

The truth is exact: scenes are drawn.
"""

from dataclasses import dataclass

import numpy as np

from ml.drawn_world.shapes import MAIN_COLOURS
from ml.drawn_world.world import CLASSES, Scene, draw_scene, scene_seed
from ml.grounding.prompting import compose_prompt
from ml.studies.prompt_sets import word_of
from ml.words.phrases import phrase

COLOUR, LEFT, RIGHT = "colour", "left of", "right of"

COLOUR_SEEDS, RELATION_SEEDS, GENERATED_SEEDS = 200_000, 500_000, 400_000
"""First index of the scenes' seeds in "paper"; relations try up to TRIES each."""

TRIES = 100


@dataclass(frozen=True)
class Asked:
    """A scene and what it is asked for. The word at `scored[i]` names object `named[i]`, and not
    object `other[i]`, of the same class."""

    scene: Scene
    text: str
    words: tuple[str, ...]
    scored: tuple[int, ...]
    named: tuple[int, ...]
    other: tuple[int, ...]
    kind: str  # COLOUR, LEFT or RIGHT


def colour_scene(index: int) -> Asked:
    """Two objects of one class in different colours, the classes in turn; both words scored."""
    name = list(MAIN_COLOURS)[index % len(MAIN_COLOURS)]
    scene = draw_scene(scene_seed("paper", COLOUR_SEEDS + index), classes=[name, name])
    words = tuple(f"{colour} {word_of(name)}" for colour in scene.colours)
    return Asked(scene, compose_prompt(words), words, (0, 1), (0, 1), (1, 0), COLOUR)


def relation_scenes(index: int) -> list[Asked]:
    """One scene of X Y X, seen from left to right, asked for the X left of the Y and for the X
    right of it. Raises RuntimeError when no placement of TRIES has Y in the middle."""
    rng = np.random.default_rng([RELATION_SEEDS, index])
    name = list(MAIN_COLOURS)[index % len(MAIN_COLOURS)]
    middle = str(rng.choice([own for own in CLASSES if own != name]))
    for attempt in range(TRIES):
        seed = scene_seed("paper", RELATION_SEEDS + TRIES * index + attempt)
        scene = draw_scene(seed, classes=[name, middle, name])
        order = by_x(scene.masks)
        if scene.classes[order[1]] == middle:
            break
    else:
        raise RuntimeError(f"no scene with the {middle} between two of {name} in {TRIES} tries")
    left, right, words = order[0], order[2], (word_of(name), word_of(middle))
    return [
        Asked(
            scene,
            f"{phrase(words[0])} {relation} {phrase(words[1])}",
            words,
            (0,),
            (own,),
            (other,),
            relation,
        )
        for relation, own, other in ((LEFT, left, right), (RIGHT, right, left))
    ]


def by_x(masks: np.ndarray) -> list[int]:
    """Objects bool (n,H,W) from left to right, by the middle of their visible part."""
    return np.argsort([mask.nonzero()[1].mean() for mask in masks]).tolist()
