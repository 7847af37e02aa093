"""What the tables of pictures and entities are built from, and the type of a stage's tables."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa

from ml.images.near_copies import near_earlier
from ml.pipeline.workspace import Workspace
from ml.store.shards import read_shards
from ml.words.spans import fold, named_in
from ml.words.vocabulary import Vocabulary

PIXELS = {"image", "label", "latent", "daam", "rles"}  # columns left on disk


Tables = dict[str, pd.DataFrame]


def facts(workspace: Workspace, stage: str, schema: pa.Schema) -> pd.DataFrame:
    """All rows of a stage without the columns that hold pixels."""
    return read_shards(workspace.folder(stage), [n for n in schema.names if n not in PIXELS])


def one_row(**values: object) -> pd.DataFrame:
    return pd.DataFrame([values])


def entities_of(rows: pd.DataFrame, vocabulary: Vocabulary) -> pd.DataFrame:
    """One row per picture and entity, with whether its word stands for it, and in the text."""
    columns = ["key", "text", "purpose", "cell", "entities", "words"]
    named = [named_in(text, words) for text, words in zip(rows["text"], rows["words"], strict=True)]
    out = (
        rows[columns]
        .assign(named_in_text=named)
        .explode(["entities", "words", "named_in_text"], ignore_index=True)
    )
    out = out.rename(columns={"entities": "entity", "words": "word"})
    out["word_means_entity"] = [
        fold(w) in {fold(name) for name in vocabulary.words.get(e, ())}
        for e, w in zip(out["entity"], out["word"], strict=True)
    ]
    out["seen"] = out["entity"].isin(vocabulary.seen)
    return out


def as_in(rows: pd.DataFrame, source: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """bool (n,): a row of `source` has the same values in all these columns. Lists count as they
    stand, a missing value equals nothing."""
    known = set(_tuples(source[columns]))
    return np.array([values in known for values in _tuples(rows[columns])], bool)


def _tuples(frame: pd.DataFrame) -> Iterator[tuple[object, ...]]:
    listed = {name for name in frame if len(frame) and isinstance(frame[name].iloc[0], np.ndarray)}
    columns = [frame[name].map(tuple) if name in listed else frame[name] for name in frame]
    return zip(*columns, strict=True)


def balance(entities: pd.Series, classes: tuple[str, ...]) -> pd.DataFrame:
    """One row per class: its count and the count as a multiple of the even share."""
    counts = entities.value_counts().reindex(list(classes), fill_value=0)
    even = max(counts.sum() / len(classes), 1e-9)
    return pd.DataFrame(
        {
            "class": counts.index,
            "count": counts.to_numpy(),
            "share_of_even": counts.to_numpy() / even,
        }
    )


def near_duplicates(hashes: pd.Series, bits: int) -> np.ndarray:
    """bool (n,): an earlier row's 64-bit difference hash is at most so many bits away."""
    return near_earlier(list(hashes), bits)
