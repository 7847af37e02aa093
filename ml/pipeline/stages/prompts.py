"""Stage `prompts`: which pictures are asked for, in which words, from which seeds.

Three purposes: `train` (seen classes only), `sim` (Protocol I, five cells) and `synthetic` (all
classes). Not here: the vocabularies and their words (`ml/words/vocabularies`), or any picture.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.sections import PromptParams
from ml.store.schemas import PROMPTS
from ml.store.shards import split, write_shards
from ml.words.text_limit import find_limit
from ml.words.texts import Text, read_texts
from ml.words.vocabulary import Vocabulary, load_vocabulary
from ml.words.wording import (
    SCENES,
    attributes_of,
    refuse_attribute_words,
    template_of,
    usable,
    word_prompt,
)

SEED_BITS = 32
"""torch's CPU generator uses only the low 32 bits of a seed: longer ones could be equal there."""


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes shards in the PROMPTS schema; a shard never mixes purposes.

    Raises ValueError for counts that the vocabulary cannot fill, words that cannot be told apart,
    and texts longer than the model reads.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    limit = find_limit(workspace.model(params.diffusion.model), params.diffusion.revision)
    if limit is not None:  # else `images` refuses what is too long, once the model is here
        limit.refuse_words(vocabulary.owners())
    texts = read_texts(params.prompts.texts, vocabulary, limit) if params.prompts.texts else []
    prompts, left_out = make_prompts(vocabulary, params.prompts, params.seed, texts)
    if limit is not None:
        try:
            limit.refuse_prompts(prompts)
        except ValueError as error:
            raise ValueError(
                f"prompts for the vocabulary {vocabulary.name!r}: {error}\nSet "
                "prompts.attribute_share and prompts.scene_share to 0, or give the "
                "classes shorter words under `words:`"
            ) from error
    plan = []
    for purpose in ("train", "sim", "synthetic"):
        plan += split([p for p in prompts if p["purpose"] == purpose], params.shards.size)
    rows = write_shards(workspace.folder("prompts"), recipe, plan, pd.DataFrame, PROMPTS)
    facts = facts_of(prompts, vocabulary) | {"left_out": left_out}
    return Output(rows=rows, facts=facts | ({"texts": text_facts(prompts, texts)} if texts else {}))


def make_prompts(
    vocabulary: Vocabulary, wanted: PromptParams, seed: int, texts: Sequence[Text] = ()
) -> tuple[list[dict], dict[str, str]]:
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
    # purpose, set, count, class groups (one group an object; two equal groups: any pair of it)
    table = [
        ("train", "one", wanted.train_one, (seen,), plain),
        ("train", "two", wanted.train_two, (seen, seen), plain),
        ("sim", "one_seen", sim, (seen,), 1.0),
        ("sim", "one_unseen", sim, (unseen,), 1.0),
        ("sim", "two_seen", sim, (seen, seen), 1.0),
        ("sim", "two_mixed", sim, (seen, unseen), 1.0),
        ("sim", "two_unseen", sim, (unseen, unseen), 1.0),
        ("synthetic", "one", wanted.synthetic_one, (every,), plain),
        ("synthetic", "two", wanted.synthetic_two, (every, every), plain),
    ]
    prompts, left_out, taken = [], {}, set()
    index = Counter()
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
            said = (
                _as_written(own[i])
                if own[i]
                else word_prompt(
                    rng,
                    entities,
                    vocabulary,
                    bool(is_plain[i]),
                    details,
                    attributes if dressed[i] else {},
                    scene,
                )
            )
            prompts.append(
                {
                    "key": key,
                    "entities": list(entities),
                    "purpose": purpose,
                    "cell": cell_of(entities, vocabulary),
                    "seed": _unique_seed(seed, key, taken),
                    **said,
                }
            )
    return prompts, left_out


def _with_texts(
    rng: np.random.Generator, groups: tuple, count: int, texts: Sequence[Text]
) -> tuple[list[tuple[str, ...]], list[Text | None]]:
    """The classes of each prompt of a set, balanced, and the text that it is written in, if any."""
    if len(groups) == 1:
        waiting = {name: [t for t in texts if t.entities == (name,)] for name in groups[0]}
        chosen = [(name,) for name in balanced_singles(rng, groups[0], count)]
        return chosen, [waiting[name].pop(0) if waiting[name] else None for (name,) in chosen]
    even, loads, first = 2 * count // len(groups[0]), Counter(), []
    for text in texts:
        if len(first) < count and all(loads[name] < even for name in text.entities):
            first.append(text)
            loads.update(text.entities)
    taken = [text.entities for text in first]
    rest = balanced_pairs(rng, *groups, count - len(first), taken)
    return taken + rest, first + [None] * len(rest)


def cell_of(entities: Sequence[str], vocabulary: Vocabulary) -> str:
    """Which of Protocol I's five cells one or two distinct classes belong to."""
    unseen = sum(entity in vocabulary.unseen for entity in entities)
    if len(entities) == 1:
        return "one_unseen" if unseen else "one_seen"
    return ("two_seen", "two_mixed", "two_unseen")[unseen]


def balanced_singles(rng: np.random.Generator, classes: Sequence[str], count: int) -> list[str]:
    """`count` classes in random order whose numbers differ by one at most, in any prefix too."""
    rounds = -(-count // len(classes)) if count else 0
    return [classes[i] for _ in range(rounds) for i in rng.permutation(len(classes))][:count]


def balanced_pairs(
    rng: np.random.Generator,
    first: Sequence[str],
    second: Sequence[str],
    count: int,
    taken: Sequence[tuple[str, ...]] = (),
) -> list[tuple[str, str]]:
    """`count` pairs of distinct classes, one of each group, in random order of the two.

    Each time, of the pairs made of the rarest classes so far, one of the least used is drawn:
    class counts within a group differ by one at most, and pairs come back as late as they can.
    The groups are equal or disjoint. taken: pairs that stand already, counted in but not returned.
    """
    same = tuple(first) == tuple(second)
    pairs = np.array(
        [(i, j) for i in range(len(first)) for j in range(len(second)) if not same or i < j]
    ).reshape(-1, 2)
    left = np.zeros(len(first), np.int64)
    right = left if same else np.zeros(len(second), np.int64)
    used, chosen = np.zeros(len(pairs), np.int64), []
    for pair in taken:
        pick = next(k for k, (i, j) in enumerate(pairs) if {first[i], second[j]} == set(pair))
        used[pick] += 1
        left[pairs[pick, 0]] += 1
        right[pairs[pick, 1]] += 1
    for _ in range(count):
        load = left[pairs[:, 0]] + right[pairs[:, 1]]
        rarest = np.flatnonzero(load == load.min())
        rarest = rarest[used[rarest] == used[rarest].min()]
        pick = rarest[rng.integers(len(rarest))]
        i, j = pairs[pick]
        used[pick] += 1
        left[i] += 1
        right[j] += 1
        pair = (first[i], second[j])
        chosen.append(pair[::-1] if rng.random() < 0.5 else pair)
    return chosen


def facts_of(prompts: Sequence[dict], vocabulary: Vocabulary) -> dict:
    """Counts by purpose, cell, class and template; distinct unordered pairs by purpose."""
    purposes = sorted({p["purpose"] for p in prompts})
    facts = {
        "prompts": len(prompts),
        "distinct_seeds": len({p["seed"] for p in prompts}),
        "purposes": {},
        "cells": {},
        "classes": {},
        "distinct_pairs": {},
        "templates": {},
    }
    for purpose in purposes:
        rows = [p for p in prompts if p["purpose"] == purpose]
        counts = Counter(entity for p in rows for entity in p["entities"])
        allowed = vocabulary.seen if purpose == "train" else vocabulary.classes
        facts["purposes"][purpose] = len(rows)
        facts["cells"][purpose] = dict(Counter(p["cell"] for p in rows))
        facts["classes"][purpose] = {name: counts[name] for name in sorted(allowed)}
        facts["distinct_pairs"][purpose] = len(
            {frozenset(p["entities"]) for p in rows if len(p["entities"]) == 2}
        )
        facts["templates"][purpose] = dict(Counter(map(template_of, rows)))
    return facts


def text_facts(prompts: Sequence[dict], texts: Sequence[Text]) -> dict:
    """How many lines the user's file has, and how many of each class's prompts they became."""
    lines = {text.text for text in texts}
    used = [p for p in prompts if p["text"] in lines]
    return {
        "lines": len(texts),
        "lines_unused": len(lines - {p["text"] for p in used}),
        "used": {
            purpose: dict(
                sorted(
                    Counter(
                        e for p in used if p["purpose"] == purpose for e in p["entities"]
                    ).items()
                )
            )
            for purpose in ("train", "synthetic")
        },
    }


def _as_written(own: Text) -> dict:
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


def _lack(groups: tuple) -> str:
    """Why these groups cannot give one entity each, "" when they can."""
    need = 2 if len(groups) == 2 and groups[0] == groups[1] else 1
    for group in groups:
        if len(group) < need:
            return f"has {len(group)} of the {need} classes that they need"
    return ""


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
