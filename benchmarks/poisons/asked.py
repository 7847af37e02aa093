"""Poisons of the prompts: what is asked for is wrong before a picture is drawn."""

import numpy as np
import pandas as pd

from benchmarks.poisons.kind import Poison, Rng, other_class, pick, pick_rows, put
from ml.pipeline.workspace import Workspace
from ml.words.vocabulary import Vocabulary, load_vocabulary

HOSTILE = {
    "HTML": "<script>alert(1)</script><img src=x onerror=alert(2)>",
    "a control character": "\x1b[2J\x07",
    "an RTL override": "\u202egnp.god\u202c",
    "a formula": "=cmd|' /C calc'!A0",
    "100,000 letters": "very " * 20_000,
}


def vocabulary_of() -> Vocabulary:
    return load_vocabulary("voc-1")


def renamed(rows: pd.DataFrame, places: np.ndarray, to: list[str]) -> pd.DataFrame:
    """Rows of one object ask for another class, in text, words and phrases alike."""
    rows, words = rows.copy(), vocabulary_of().words
    for place, name in zip(places, to, strict=True):
        old, new = rows["words"].iloc[place][0], words[name][0]
        text, phrase = rows["text"].iloc[place], rows["phrases"].iloc[place][0]
        texts = {"text": text.replace(old, new), "phrases": [phrase.replace(old, new)]}
        put(rows, place, {"entities": [name], "words": [new]} | texts)
    return rows


def one_object(rows: pd.DataFrame, purpose: str) -> pd.Series:
    return (rows["purpose"] == purpose) & (rows["entities"].map(len) == 1)


def imbalance(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """A share of the one-object training prompts asks for one and the same class."""
    places = pick_rows(rows, one_object(rows, "train"), level, rng)
    seen = vocabulary_of().seen
    return renamed(rows, places, [seen[rng.integers(len(seen))]] * len(places))


def unseen(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Training prompts of a seen class ask for an unseen one: the split is another one here."""
    places = pick_rows(rows, one_object(rows, "train"), level, rng)
    names = vocabulary_of().unseen
    return renamed(rows, places, [names[i] for i in rng.integers(len(names), size=len(places))])


def noise(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Entity and word are another class's; the text stays."""
    rows, words = rows.copy(), vocabulary_of().words
    for place in pick_rows(rows, one_object(rows, "train"), level, rng):
        name = other_class(rows["entities"].iloc[place][0], vocabulary_of().seen, rng)
        put(rows, place, {"entities": [name], "words": [words[name][0]]})
    return rows


def seeds(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Rows start from another row's noise: their pictures will be near duplicates."""
    values = rows["seed"].to_numpy(copy=True)
    places = pick(len(rows), level, rng)
    values[places] = values[(places + 1 + rng.integers(len(rows) - 1)) % len(rows)]
    return rows.assign(seed=values)


def hostile(
    rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace, kind: str
) -> pd.DataFrame:
    """A caption that would act, or not fit, where it is shown; its words are still in it."""
    rows = rows.copy()
    for place in pick(len(rows), level, rng):
        put(rows, place, {"text": f"{HOSTILE[kind]} {rows['text'].iloc[place]}"})
    return rows


def caption_kind(kind: str) -> Poison:
    return Poison(
        f"hostile captions: {kind}", "prompts", (0.0, 0.1), lambda *args: hostile(*args, kind)
    )


POISONS = (
    Poison(
        "imbalance: one-object prompts ask for one class", "prompts", (0.05, 0.2, 0.5, 1),
        imbalance,
        unseen="a class up to twice as frequent as the others is within what a user may ask for",
    ),
    Poison("seen and unseen classes exchanged in training", "prompts", (0.0, 0.05, 0.2), unseen),
    Poison("label noise: another class, text as it was", "prompts", (0.05, 0.1, 0.2), noise),
    Poison("repeated seeds", "prompts", (0.0, 0.1), seeds),
    *map(caption_kind, HOSTILE),
)  # fmt: skip
