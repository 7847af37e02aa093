"""The pictures that the grounding module learns from and is judged on, read from the stages.

Ten thousand pictures of 512 pixels are 13 GB with their masks: both stay as they are stored, PNG
in the shards and run lengths, and are decoded where they are looked at.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ml.pictures import decode_png, decode_rle
from ml.shards import read_shards, shard_files
from ml.stages import Workspace


class Pictures:
    """The pictures of shards, one shard's PNG bytes in memory: fast in the order of the shards."""

    def __init__(self) -> None:
        self.shard: Path | None = None
        self.data: list[bytes] = []

    def read(self, shard: Path, row: int) -> np.ndarray:
        """uint8 (H,W,3) RGB."""
        if shard != self.shard:
            self.shard, self.data = shard, list(pd.read_parquet(shard, columns=["image"])["image"])
        return decode_png(self.data[row])


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
    size: tuple[int, int]  # (H, W) of the picture
    shard: Path  # that holds the picture
    row: int  # in that shard
    pictures: Pictures
    latent: np.ndarray  # float32 (C,h,w), before the last denoising step
    timestep: int  # of that latent, 0..999
    rles: tuple[str, ...]  # n run-length masks, "" where none was accepted
    daam: np.ndarray  # float32 (n,h,w), heat map of each word

    @property
    def image(self) -> np.ndarray:
        """uint8 (H,W,3), read from its shard."""
        return self.pictures.read(self.shard, self.row)

    @property
    def masks(self) -> np.ndarray:
        """bool (n,H,W), False everywhere where not present."""
        masks = np.zeros((len(self.rles), *self.size), bool)
        for mask, rle in zip(masks, self.rles, strict=True):
            if rle:
                mask[:] = decode_rle(rle)
        return masks

    @property
    def present(self) -> np.ndarray:
        """bool (n,), a mask was accepted."""
        return np.array([bool(rle) for rle in self.rles])


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
    """Pictures of these subsets with at least one accepted mask, in the order of their keys.

    Raises ValueError when there is none, or when `images` lacks one that `triplets` names.
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
        frame = pd.read_parquet(shard, columns=_COLUMNS)
        for row in frame[frame.key.isin(list(wanted))].itertuples():
            found[row.key] = _sample(row, wanted[row.key], shard, pictures)
    lost = sorted(set(wanted) - set(found))
    if lost:
        raise ValueError(
            f"{len(lost)} pictures of triplets are not in "
            f"{workspace.folder('images')}, e.g. {lost[0]!r}; make triplets again"
        )
    return [found[key] for key in wanted]


def _sample(row, triplets: pd.DataFrame, shard: Path, pictures: Pictures) -> Sample:
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


def refuse_unseen(samples: Sequence[Sample], seen: Collection[str]) -> None:
    """Raises ValueError when a mask of a class that is not seen would teach the module."""
    leaked = sorted(
        {
            e
            for s in samples
            for e, there in zip(s.entities, s.present, strict=True)
            if there and e not in seen
        }
    )
    if leaked:
        raise ValueError(
            f"masks of classes that are not seen among the training triplets: "
            f"{leaked}; expected only {sorted(seen)}. Make masks and triplets again"
        )
