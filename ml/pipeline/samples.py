"""Training samples read from a workspace: the pictures of `images` with the masks of `triplets`."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ml.grounding.samples import Sample, named_by
from ml.images.stored import Pictures
from ml.pipeline.workspace import Workspace
from ml.store.shards import iter_shards, read_frame, with_keys
from ml.store.sidecars import shard_files

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
    are asked for; latents and heat maps are in memory. Raises ValueError when there is no such
    picture, or when `images` lacks one that `triplets` names.
    """
    return sorted(iter_samples(workspace, subsets), key=lambda sample: sample.key)


def iter_samples(workspace: Workspace, subsets: Collection[str]) -> Iterator[Sample]:
    """As `load_samples`, one after the other in the order of the shards, which the stage `images`
    writes in that of the keys: for whoever needs no more than one at a time."""
    wanted = accepted_masks(workspace.folder("triplets"), set(subsets))
    pictures, found = Pictures(), set()
    for shard in shard_files(workspace.folder("images")):
        frame = read_frame(shard, _COLUMNS)
        for row in with_keys(frame, wanted).itertuples():
            found.add(row.key)
            yield _sample(row, *wanted[row.key], shard, pictures)
    if lost := sorted(wanted.keys() - found):
        raise ValueError(
            f"{len(lost)} pictures of triplets are not in "
            f"{workspace.folder('images')}, e.g. {lost[0]!r}; make triplets again"
        )


def accepted_masks(folder: Path, subsets: set[str]) -> dict[str, tuple[str, dict[str, str]]]:
    """Key of a picture -> its subset, and the accepted masks by entity. folder: of `triplets`.

    Raises ValueError when there is none in these subsets.
    """
    wanted: dict[str, tuple[str, dict[str, str]]] = {}
    for frame in iter_shards(folder, ["key", "entity", "subset", "accepted", "rle"]):
        for row in frame[frame.subset.isin(list(subsets)) & frame.accepted].itertuples():
            wanted.setdefault(row.key, (row.subset, {}))[1][row.entity] = row.rle
    if not wanted:
        raise ValueError(
            f"no accepted triplet in the subsets {sorted(subsets)} of "
            f"{folder}: look at the reasons of the rejected"
        )
    return wanted


def _sample(row: Any, subset: str, rles: dict[str, str], shard: Path, pictures: Pictures) -> Sample:
    """One sample. row: a named tuple of the stage `images` with _COLUMNS; rles: by entity."""
    return Sample(
        **named_by(row),
        cell=row.cell,
        subset=subset,
        size=(int(row.height), int(row.width)),
        shard=shard,
        pictures=pictures,
        latent=np.frombuffer(row.latent, np.float32).reshape(row.latent_shape).copy(),
        timestep=int(row.timestep),
        rles=tuple(rles.get(entity, "") for entity in row.entities),
        daam=np.frombuffer(row.daam, np.float16).reshape(row.daam_shape).astype(np.float32),
    )
