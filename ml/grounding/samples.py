"""The pictures that the grounding module learns from and is judged on, read from the stages."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ml.pictures import decode_png, decode_rle
from ml.shards import iter_shards, read_shards
from ml.stages import Workspace


@dataclass(frozen=True)
class Sample:
    """One generated picture and its words. n = number of entities, in the order of the text."""

    key: str
    text: str
    entities: tuple[str, ...]  # class names
    words: tuple[str, ...]
    phrases: tuple[str, ...]
    cell: str
    subset: str  # train, validation or sim
    seed: int
    image: np.ndarray  # uint8 (H,W,3)
    latent: np.ndarray  # float32 (C,h,w), before the last denoising step
    timestep: int  # of that latent, 0..999
    masks: np.ndarray  # bool (n,H,W), False everywhere where not present
    present: np.ndarray  # bool (n,), a mask was accepted
    daam: np.ndarray  # float32 (n,h,w), heat map of each word


_COLUMNS = ["key", "text", "entities", "words", "phrases", "cell", "seed", "image", "latent",
            "latent_shape", "timestep", "daam", "daam_shape"]


def load_samples(workspace: Workspace, subsets: Collection[str]) -> list[Sample]:
    """Pictures of these subsets with at least one accepted mask, in the order of their keys.

    Raises ValueError when there is none, or when `images` lacks one that `triplets` names.
    """
    triplets = read_shards(workspace.folder("triplets"),
                           ["key", "entity", "subset", "accepted", "rle"])
    triplets = triplets[triplets.subset.isin(list(subsets)) & triplets.accepted]
    if triplets.empty:
        raise ValueError(f"no accepted triplet in the subsets {sorted(subsets)} of "
                         f"{workspace.folder('triplets')}: look at the reasons of the rejected")
    wanted = {key: group for key, group in triplets.groupby("key", sort=True)}
    found: dict[str, Sample] = {}
    for frame in iter_shards(workspace.folder("images"), _COLUMNS):
        for row in frame[frame.key.isin(list(wanted))].itertuples(index=False):
            found[row.key] = _sample(row, wanted[row.key])
    lost = sorted(set(wanted) - set(found))
    if lost:
        raise ValueError(f"{len(lost)} pictures of triplets are not in "
                         f"{workspace.folder('images')}, e.g. {lost[0]!r}; make triplets again")
    return [found[key] for key in wanted]


def _sample(row, triplets: pd.DataFrame) -> Sample:
    image = decode_png(row.image)
    rles = dict(zip(triplets.entity, triplets.rle, strict=True))
    masks = np.zeros((len(row.entities), *image.shape[:2]), bool)
    for i, entity in enumerate(row.entities):
        if entity in rles:
            masks[i] = decode_rle(rles[entity])
    return Sample(
        key=row.key, text=row.text, entities=tuple(row.entities), words=tuple(row.words),
        phrases=tuple(row.phrases), cell=row.cell, subset=triplets.subset.iloc[0],
        seed=int(row.seed), image=image,
        latent=np.frombuffer(row.latent, np.float32).reshape(row.latent_shape).copy(),
        timestep=int(row.timestep), masks=masks,
        present=np.array([entity in rles for entity in row.entities]),
        daam=np.frombuffer(row.daam, np.float16).reshape(row.daam_shape).astype(np.float32),
    )


def refuse_unseen(samples: Sequence[Sample], seen: Collection[str]) -> None:
    """Raises ValueError when a mask of a class that is not seen would teach the module."""
    leaked = sorted({e for s in samples for e, there in zip(s.entities, s.present, strict=True)
                     if there and e not in seen})
    if leaked:
        raise ValueError(f"masks of classes that are not seen among the training triplets: "
                         f"{leaked}; expected only {sorted(seen)}. Make masks and triplets again")
