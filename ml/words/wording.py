"""How a prompt is worded: templates, attributes and scenes, as literal tables.

Attributes and scenes ("a red forklift in a warehouse") vary the pictures without hinting at the
class. Not here: which classes are asked for (`ml.words.prompts`), articles (`ml.words.english`),
and the user's own texts (`ml.words.texts`).
"""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from ml.words.phrases import phrase
from ml.words.spans import find, fold, occurrences
from ml.words.vocabulary import Vocabulary

PLAIN = {1: "a photograph of {A}", 2: "a photograph of {A} and {B}"}
"""Objects -> the paper's template (arXiv 2301.05221), the only one of `sim` prompts."""
OTHERS = {
    1: ("a picture of {A}", "a photo of {A}"),
    2: ("a picture of {A} and {B}", "a photo of {A} and {B}", "{A} next to {B}", "{A} near {B}"),
}
"""Other templates: any diffusion model knows them, and the phrase is not always at the end."""
OWN_TEXT = "the user's text"
"""Stands for the template of a prompt that came from the user's file."""
COLOURS = ("red", "blue", "green", "yellow", "white", "black", "grey", "brown")
MATERIALS = ("wooden", "metal", "plastic")
SIZES = ("small", "large")
AGES = ("old", "new")
THING_ATTRIBUTES = COLOURS + MATERIALS + SIZES + AGES

LIVING_ATTRIBUTES = SIZES + ("old", "young")
LIVING = frozenset(
    {
        "person",
        "bird",
        "cat",
        "dog",
        "horse",
        "sheep",
        "cow",
        "elephant",
        "bear",
        "zebra",
        "giraffe",
    }
)
"""COCO's living classes: "a wooden horse" is drawn as a toy, "a blue person" as a costume."""

SCENES = (
    "on a street",
    "in a city",
    "in a park",
    "in a field",
    "in a forest",
    "in a garden",
    "on a beach",
    "in the snow",
    "on a lawn",
    "in a yard",
    "in a warehouse",
    "in a factory",
    "in a workshop",
    "at a construction site",
    "in a hall",
    "in an office",
    "in a kitchen",
    "in a living room",
    "on a wooden floor",
    "against a brick wall",
    "at night",
    "at sunset",
)
"""Where or when. None names a thing that covers much of the picture and is a usual class."""


class Wording(TypedDict):
    """What a prompt says. Its words are the vocabulary's, its phrases stand in the text."""

    text: str
    words: list[str]
    phrases: list[str]


class Prompt(Wording):
    """A row of `ml.store.schemas.PROMPTS`."""

    key: str
    entities: list[str]  # classes, one or two
    purpose: str
    cell: str  # of Protocol I (`ml.words.cells`)
    seed: int


def template_of(prompt: Wording) -> str:
    """The template that a prompt was made from: its text with {A}, {B} for the phrases, without
    its scene; OWN_TEXT for a text that no template gives."""
    text = prompt["text"]
    places = occurrences(text, prompt["phrases"])
    for (start, end), letter in sorted(
        ((own[0], letter) for own, letter in zip(places, "AB", strict=False)), reverse=True
    ):
        text = f"{text[:start]}{{{letter}}}{text[end:]}"
    scene = next((scene for scene in SCENES if text.endswith(f" {scene}")), None)
    text = text.removesuffix(f" {scene}")
    objects = len(prompt["phrases"])
    return text if text in (PLAIN[objects], *OTHERS[objects]) else OWN_TEXT


def word_prompt(
    rng: np.random.Generator,
    entities: Sequence[str],
    vocabulary: Vocabulary,
    plain: bool,
    details: np.random.Generator,
    attributes: dict[str, list[str]],
    scene: str,
) -> Wording:
    """Text, words and phrases of a prompt. attributes: class -> the attributes that may stand
    before its word, drawn by `details`; {} for none. scene: what the text ends in, "" for
    nothing."""
    choices = [vocabulary.words[entity] for entity in entities]
    if plain:
        words, template = [options[0] for options in choices], PLAIN[len(entities)]
    else:
        words = [options[rng.integers(len(options))] for options in choices]
        template = OTHERS[len(entities)][rng.integers(len(OTHERS[len(entities)]))]
    phrases = []
    for entity, word in zip(entities, words, strict=True):
        fitting = [a for a in attributes.get(entity, ()) if not fold(word).startswith(a)]
        phrases.append(phrase(word, fitting[details.integers(len(fitting))] if fitting else None))
    text = template.format(**dict(zip("AB", phrases, strict=False)))
    text = f"{text} {scene}" if scene else text
    return {"text": text, "words": words, "phrases": phrases}


def usable(entries: Sequence[str], vocabulary: Vocabulary) -> list[str]:
    """The entries in which no word of the vocabulary stands: they would name another object."""
    words = {fold(word) for words in vocabulary.words.values() for word in words}
    return [entry for entry in entries if not find(entry, words, glued=True)]


def attributes_of(vocabulary: Vocabulary) -> dict[str, list[str]]:
    """Class -> the attributes that may stand before its word."""
    living, things = (usable(own, vocabulary) for own in (LIVING_ATTRIBUTES, THING_ATTRIBUTES))
    return {name: living if name in LIVING else things for name in vocabulary.classes}


def refuse_attribute_words(vocabulary: Vocabulary) -> None:
    """Raises ValueError when an attribute turns one class's word into another's.

    With the classes "panda" and "red panda", "a red panda" could be either.
    """
    owner = vocabulary.owners()
    attributes = set(THING_ATTRIBUTES + LIVING_ATTRIBUTES)
    for word, name in owner.items():
        first, _, rest = word.partition(" ")
        tokens = rest.split()
        heads = [" ".join(tokens[:end]) for end in range(1, len(tokens) + 1)]
        short = next((head for head in heads if owner.get(head, name) != name), None)
        if first in attributes and short:
            raise ValueError(
                f"vocabulary {vocabulary.name!r}: {word!r} of class {name!r} is what "
                f"prompts.attribute_share makes of {short!r} of class {owner[short]!r}; set it to "
                "0, or give one of them another word under `words:`"
            )
