"""Training samples read from a workspace: the pictures of `images` with the masks of `triplets`."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml.grounding.samples import Sample
from ml.images.stored import Pictures
from ml.pipeline.workspace import Workspace
from ml.store.shards import read_frame, read_shards, shard_files

_COLUMNS = [
    "key",
    "text",
    "entities",
    "words",
    "phrases",
    "cell",
    "seed",
    "height",
    "width",
    "latent",
    "latent_shape",
    "timestep",
    "daam",
    "daam_shape",
]


def load_samples(workspace: Workspace, subsets: Collection[str]) -> list[Sample]:
    """The pictures of these subsets with at least one accepted mask, in the order of their keys.

    subsets: of "train", "validation" and "sim". Pixels and masks stay in their shards until they
    are asked for. Raises ValueError when there is no such picture, or when `images` lacks one that
    `triplets` names.
    """
    triplets = read_shards(
        workspace.folder("triplets"), ["key", "entity", "subset", "accepted", "rle"]
    )
    triplets = triplets[triplets.subset.isin(list(subsets)) & triplets.accepted]
    if triplets.empty:
        raise ValueError(
            f"no accepted triplet in the subsets {sorted(subsets)} of "
            f"{workspace.folder('triplets')}: look at the reasons of the rejected"
        )
    wanted = {key: group for key, group in triplets.groupby("key", sort=True)}
    found: dict[str, Sample] = {}
    pictures = Pictures()
    for shard in shard_files(workspace.folder("images")):
        frame = read_frame(shard, _COLUMNS)
        for row in frame[frame.key.isin(list(wanted))].itertuples():
            found[row.key] = _sample(row, wanted[row.key], shard, pictures)
    lost = sorted(set(wanted) - set(found))
    if lost:
        raise ValueError(
            f"{len(lost)} pictures of triplets are not in "
            f"{workspace.folder('images')}, e.g. {lost[0]!r}; make triplets again"
        )
    return [found[key] for key in wanted]


def _sample(row: Any, triplets: pd.DataFrame, shard: Path, pictures: Pictures) -> Sample:
    """One sample. row: a named tuple of the stage `images` with _COLUMNS; triplets: of its key."""
    rles = dict(zip(triplets.entity, triplets.rle, strict=True))
    return Sample(
        key=row.key,
        text=row.text,
        entities=tuple(row.entities),
        words=tuple(row.words),
        phrases=tuple(row.phrases),
        cell=row.cell,
        subset=triplets.subset.iloc[0],
        seed=int(row.seed),
        size=(int(row.height), int(row.width)),
        shard=shard,
        row=row.Index,
        pictures=pictures,
        latent=np.frombuffer(row.latent, np.float32).reshape(row.latent_shape).copy(),
        timestep=int(row.timestep),
        rles=tuple(rles.get(entity, "") for entity in row.entities),
        daam=np.frombuffer(row.daam, np.float16).reshape(row.daam_shape).astype(np.float32),
    )
