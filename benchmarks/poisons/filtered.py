"""Poisons of the triplets: what the filter hands to the training."""

import numpy as np
import pandas as pd

from benchmarks.poisons import found
from benchmarks.poisons.asked import vocabulary_of
from benchmarks.poisons.kind import Poison, Rng, pick_rows
from ml.pipeline.workspace import Workspace


def rejected(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """A share of one seen class's rows is rejected."""
    seen = vocabulary_of().seen
    name = seen[rng.integers(len(seen))]
    places = pick_rows(rows, (rows["entity"] == name) & rows["accepted"], level, rng)
    hit = np.isin(np.arange(len(rows)), places)
    return rows.assign(
        accepted=rows["accepted"] & ~hit, reason=rows["reason"].mask(hit, "low_score")
    )


def all_accepted(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """A share of what was rejected is accepted."""
    hit = np.isin(np.arange(len(rows)), pick_rows(rows, ~rows["accepted"], level, rng))
    return rows.assign(accepted=rows["accepted"] | hit, reason=rows["reason"].mask(hit, ""))


def repeated(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Accepted training rows stand there twice."""
    places = pick_rows(rows, rows["accepted"] & (rows["subset"] == "train"), level, rng)
    return pd.concat([rows, rows.iloc[places]], ignore_index=True)


def validated(rows: pd.DataFrame, level: float, rng: Rng, workspace: Workspace) -> pd.DataFrame:
    """Of pictures of two things one is for validation, the other for training."""
    twice = rows["key"].duplicated(keep="first") & (rows["subset"] == "train")
    hit = np.isin(np.arange(len(rows)), pick_rows(rows, twice, level, rng))
    return rows.assign(subset=rows["subset"].mask(hit, "validation"))


POISONS = (
    Poison("all masks shifted", "triplets", (1, 4), found.shifted, "px"),
    Poison("masks swapped within pictures of two", "triplets", (0.05, 1), found.swapped_within),
    Poison("two classes exchanged in whole: names", "triplets", (1,), found.renamed, ""),
    Poison("label noise: another class's name", "triplets", (0.05, 0.1, 0.2), found.noise),
    Poison("label noise: masks of other pictures", "triplets", (0.05, 0.2), found.of_others),
    Poison("rejected rows accepted", "triplets", (0.0, 1), all_accepted),
    Poison("duplicates", "triplets", (0.0, 0.05), repeated),
    Poison("a picture in training and validation", "triplets", (0.0, 0.2), validated),
    Poison("imbalance: a class is rejected", "triplets", (0.5, 0.9, 1), rejected,
           unseen="a class may be that hard; a fifth of the even share must be there"),
)  # fmt: skip
