"""The words of a drawn scene: phrases of objects, templates, and the caption of a whole scene.

`TEMPLATES` are what prompts elsewhere are made of, so that a prompt reads like a
training caption. Not here: which vocabulary is seen or unseen, and the drawing itself.
"""

from collections.abc import Sequence

import numpy as np

from ml.words.phrases import phrase
from ml.words.vocabulary import synonyms

TEMPLATES: dict[int, tuple[tuple[str, float], ...]] = {
    1: (
        ("a photograph of {A}", 0.5),
        ("a picture of {A}", 0.15),
        ("a photo of {A}", 0.2),
        ("{A}", 0.15),
    ),
    2: (
        ("a photograph of {A} and {B}", 0.5),
        ("a picture of {A} and {B}", 0.1),
        ("a photo of {A} and {B}", 0.1),
        ("{A} next to {B}", 0.09),
        ("{A} near {B}", 0.09),
        ("{A} left of {B}", 0.06),
        ("{A} right of {B}", 0.06),
    ),
    3: (
        ("a photograph of {A}, {B} and {C}", 0.5),
        ("a picture of {A}, {B} and {C}", 0.1),
        ("a photo of {A}, {B} and {C}", 0.1),
        ("{A}, {B} and {C}", 0.3),
    ),
}
"""Number of objects -> (template, share of captions)."""

PLACES: dict[str, str] = {
    "grass": "on grass",
    "sand": "on sand",
    "road": "on a road",
    "water": "on water",
    "snow": "on snow",
    "indoors": "indoors",
}
"""Background -> its words in a caption; a plain background has none."""

CANONICAL_SHARE = 0.85
COLOUR_SHARE = 0.2
PLACE_SHARE = 0.335
"""Of captions whose background has a name (75 % of scenes have one): 25 % of all captions."""

MAX_WORDS = 22


def object_phrase(
    rng: np.random.Generator, name: str, colour: str | None, *, name_colour: bool = False
) -> str:
    """The phrase a caption has for an object of a class.

    It names the object's colour now and then, or always with name_colour (two of a class).
    """
    words = synonyms()[name]
    word = words[0]
    if len(words) > 1 and rng.random() >= CANONICAL_SHARE:
        word = words[1 + int(rng.random() * (len(words) - 1))]
    named = colour is not None and (rng.random() < COLOUR_SHARE or name_colour)
    return phrase(word, colour if named else None)


def compose(
    rng: np.random.Generator, entities: Sequence[str], xs: Sequence[float], background: str
) -> str:
    """The caption of a scene whose objects stand in caption order.

    entities: one phrase an object. xs: the horizontal centre of each object, in pixels; decides
    which of "left of" and "right of" is true.
    """
    templates = TEMPLATES[len(entities)]
    shares = np.cumsum([share for _, share in templates])
    template, _ = templates[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]
    if len(xs) == 2 and xs[0] > xs[1]:
        template = template.replace("left of", "right of")
    elif len(xs) == 2 and "right of" in template:
        template = template.replace("right of", "left of")
    caption = template.format(**dict(zip("ABC", entities, strict=False)))
    if background in PLACES and rng.random() < PLACE_SHARE:
        caption = f"{caption} {PLACES[background]}"
    return caption
