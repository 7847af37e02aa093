"""Stage `prompts`: which pictures are asked for, in which words, from which seeds.

Not here: how prompts are made (`ml.words.prompts`), the vocabularies, or any picture.
"""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.making import write_shards
from ml.store.schemas import PROMPTS
from ml.store.shards import split
from ml.words.prompts import make_prompts
from ml.words.text_limit import find_limit
from ml.words.texts import Text, read_texts
from ml.words.vocabulary import Vocabulary, load_vocabulary, refuse_unlabelled
from ml.words.wording import Prompt, template_of


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes shards in the PROMPTS schema; a shard never mixes purposes.

    Raises ValueError for counts that the vocabulary cannot fill, words that cannot be told apart,
    and texts longer than the model reads.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    refuse_unlabelled(vocabulary, params.triplets.labels)  # before pictures are drawn for hours
    drawing = params.diffusion
    limit = find_limit(workspace.model(drawing.model), drawing.revision, drawing.t5_tokens)
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


def facts_of(prompts: Sequence[Prompt], vocabulary: Vocabulary) -> dict:
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


def text_facts(prompts: Sequence[Prompt], texts: Sequence[Text]) -> dict:
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
