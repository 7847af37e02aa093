"""The prompts of a run: which classes are asked for, in which words, from which seeds.

Three purposes: `train` (seen classes only), `sim` (Protocol I, five cells) and `synthetic` (all
classes). Not here: how one prompt is worded (`ml.words.wording`), and the vocabularies.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ml.settings.sections import PromptParams
from ml.words.balance import balanced_pairs, balanced_singles
from ml.words.cells import CELLS, cell_of
from ml.words.texts import Text
from ml.words.vocabulary import Vocabulary
from ml.words.wording import (
    SCENES,
    Prompt,
    Wording,
    attributes_of,
    refuse_attribute_words,
    usable,
    word_prompt,
)

SEED_BITS = 32
"""torch's CPU generator uses only the low 32 bits of a seed: longer ones could be equal there."""
Groups: TypeAlias = tuple[tuple[str, ...], ...]
"""Of a set of prompts: the classes that each object is one of; two equal groups mean any pair."""


def make_prompts(
    vocabulary: Vocabulary, wanted: PromptParams, seed: int, texts: Sequence[Text] = ()
) -> tuple[list[Prompt], dict[str, str]]:
    """All prompts as rows of the PROMPTS schema, and {cell: why it was left out} of the sim set.

    A set depends on the seed, its own name and its own count alone, so that asking for more
    synthetic pictures leaves the training ones as they are. The user's texts take places within
    the counts, each once in a set, as long as every class keeps its even share; in training only
    those that name seen classes alone.
    """
    check(vocabulary, wanted)
    scenes = usable(SCENES, vocabulary)
    attributes = attributes_of(vocabulary)
    seen, unseen, every = vocabulary.seen, vocabulary.unseen, vocabulary.classes
    sim, plain = wanted.sim_per_cell, wanted.plain_share
    cells = {
        name: (seen,) * (cell.objects - cell.unseen) + (unseen,) * cell.unseen
        for name, cell in CELLS.items()
    }
    table: list[tuple[str, str, int, Groups, float]] = [  # purpose, set, count, groups, plain share
        ("train", "one", wanted.train_one, (seen,), plain),
        ("train", "two", wanted.train_two, (seen, seen), plain),
        *(("sim", name, sim, groups, 1.0) for name, groups in cells.items()),
        ("synthetic", "one", wanted.synthetic_one, (every,), plain),
        ("synthetic", "two", wanted.synthetic_two, (every, every), plain),
    ]
    prompts: list[Prompt] = []
    left_out: dict[str, str] = {}
    taken: set[int] = set()
    index: Counter[str] = Counter()
    for purpose, name, count, groups, plain_share in table:
        if not count:
            continue
        if lack := _lack(groups):
            if purpose != "sim":
                raise ValueError(
                    f"prompts.{purpose}_{name} is {count}, but vocabulary "
                    f"{vocabulary.name!r} {lack}: set it to 0 or list more classes"
                )
            left_out[name] = f"vocabulary {vocabulary.name!r} {lack}"
            continue
        rng = np.random.default_rng(_number(f"{seed}/{purpose}/{name}", 64))
        details = np.random.default_rng(_number(f"{seed}/{purpose}/{name}/details", 64))
        fitting = (
            []
            if purpose == "sim"
            else [
                text
                for text in texts
                if len(text.entities) == len(groups) and set(text.entities) <= set(groups[0])
            ]
        )
        chosen, own = _with_texts(rng, groups, count, fitting)
        share = 0.0 if purpose == "sim" else 1.0
        is_plain = rng.permutation(count) < round(plain_share * count)
        dressed = details.permutation(count) < round(share * wanted.attribute_share * count)
        placed = details.permutation(count) < round(share * wanted.scene_share * count)
        for i, entities in enumerate(chosen):
            key = f"{purpose}-{index[purpose]:06d}"
            index[purpose] += 1
            scene = scenes[details.integers(len(scenes))] if placed[i] else ""
            text = own[i]
            wording = (
                word_prompt(
                    rng,
                    entities,
                    vocabulary,
                    bool(is_plain[i]),
                    details,
                    attributes if dressed[i] else {},
                    scene,
                )
                if text is None
                else _as_written(text)
            )
            prompts.append(
                {
                    "key": key,
                    "entities": list(entities),
                    "purpose": purpose,
                    "cell": cell_of(entities, vocabulary.unseen),
                    "seed": _unique_seed(seed, key, taken),
                    **wording,
                }
            )
    return prompts, left_out


def _with_texts(
    rng: np.random.Generator, groups: Groups, count: int, texts: Sequence[Text]
) -> tuple[list[tuple[str, ...]], list[Text | None]]:
    """The classes of each prompt of a set, balanced, and the text that it is written in, if any."""
    if len(groups) == 1:
        waiting = {name: [t for t in texts if t.entities == (name,)] for name in groups[0]}
        chosen = balanced_singles(rng, groups[0], count)
        written = [waiting[name].pop(0) if waiting[name] else None for name in chosen]
        return [(name,) for name in chosen], written
    even = 2 * count // len(groups[0])
    loads: Counter[str] = Counter()
    first: list[Text] = []
    for text in texts:
        if len(first) < count and all(loads[name] < even for name in text.entities):
            first.append(text)
            loads.update(text.entities)
    taken = [text.entities for text in first]
    rest = balanced_pairs(rng, groups[0], groups[1], count - len(first), taken)
    return taken + rest, first + [None] * len(rest)


def check(vocabulary: Vocabulary, wanted: PromptParams) -> None:
    """Raises ValueError for counts and shares out of range, or words that cannot be told apart."""
    for name, value in vars(wanted).items():
        if name.endswith("_share"):
            if not 0 <= value <= 1:
                raise ValueError(f"prompts.{name}: expected 0..1, got {value}")
        elif name != "texts" and value < 0:
            raise ValueError(f"prompts.{name}: expected 0 or more, got {value}")
    if wanted.attribute_share:
        refuse_attribute_words(vocabulary)
    if wanted.scene_share and not usable(SCENES, vocabulary):
        raise ValueError(
            f"prompts.scene_share is {wanted.scene_share}, but every scene names a "
            f"word of vocabulary {vocabulary.name!r}; set it to 0"
        )
    # "a bear" and "a bear cub": a picture of the second shows the first.
    owner = vocabulary.owners()
    for longer, stranger in owner.items():
        parts = longer.split(" ")
        for word in (" ".join(parts[:end]) for end in range(1, len(parts))):
            if owner.get(word, stranger) != stranger:
                raise ValueError(
                    f"vocabulary {vocabulary.name!r}: {word!r} of class "
                    f"{owner[word]!r} and {longer!r} of class {stranger!r} cannot be "
                    "told apart in a prompt; give one of them another word under "
                    "`words:`"
                )


def _as_written(own: Text) -> Wording:
    return {"text": own.text, "words": list(own.words), "phrases": list(own.phrases)}


def _number(text: str, bits: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - bits)


def _unique_seed(seed: int, key: str, taken: set[int]) -> int:
    """32 bits of sha256 of (seed, key), hashed on until no other prompt has them."""
    text, tries = f"{seed}/{key}", 0
    while (value := _number(f"{text}/{tries}", SEED_BITS)) in taken:
        tries += 1
    taken.add(value)
    return value


def _lack(groups: Groups) -> str:
    """Why these groups cannot give one entity each, "" when they can."""
    need = 2 if len(groups) == 2 and groups[0] == groups[1] else 1
    for group in groups:
        if len(group) < need:
            return f"has {len(group)} of the {need} classes that they need"
    return ""
