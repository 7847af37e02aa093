"""A picture of the studies with all that is kept of it, and how it lies in a shard.

Kept are latents of several timesteps, DAAM's maps, leave-one-out contrast, the detector's masks
and, of a drawn scene, the true ones. U-Net features are computed again from the latents.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ml.grounding.samples import Sample, named_by
from ml.images.run_lengths import decode_rle
from ml.images.stored import Pictures

GENERATED, NOISED, INVERTED = "generated", "noised", "inverted"
"""Where a latent comes from: the sampling run, a drawn scene with noise, or DDIM inversion."""

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.string()),
        ("entities", pa.list_(pa.string())),
        ("words", pa.list_(pa.string())),
        ("phrases", pa.list_(pa.string())),
        ("seed", pa.int64()),
        ("image", pa.binary()),
        ("size", pa.list_(pa.int64())),  # (H,W)
        ("latents", pa.binary()),
        ("latents_shape", pa.list_(pa.int64())),  # float16 (K,C,h,w)
        ("sources", pa.list_(pa.string())),
        ("timesteps", pa.list_(pa.int64())),  # K of each
        ("daam", pa.binary()),
        ("evidence", pa.binary()),  # float16 (n,h,w) and (n,E,h,w)
        ("rles", pa.list_(pa.string())),
        ("truth", pa.list_(pa.string())),  # "" where there is none
    ]
)


@dataclass(frozen=True)
class Record(Sample):
    """A picture of the studies. `masks` and `present` are the detector's, as in Protocol I."""

    latents: np.ndarray  # float32 (K,C,h,w)
    sources: tuple[str, ...]  # K of GENERATED, NOISED, INVERTED
    timesteps: tuple[int, ...]  # K
    evidence: np.ndarray  # float32 (n,E,h,w)
    truth_rles: tuple[str, ...]  # n, "" in generated pictures
    place: int  # which of the K it is seen at

    @property
    def truth(self) -> np.ndarray:
        """bool (n,H,W), exact."""
        return np.stack([decode_rle(rle) for rle in self.truth_rles])

    @property
    def whole(self) -> bool:
        """The detector's masks of all words were accepted: Protocol I judges no other picture."""
        return all(self.rles)

    def at(self, place: int) -> "Record":
        """The same picture, seen at the place-th of its latents."""
        return replace(
            self, latent=self.latents[place], timestep=self.timesteps[place], place=place
        )

    @property
    def source(self) -> str:
        """Where the latent that it is seen at comes from."""
        return self.sources[self.place]

    @property
    def is_drawn(self) -> bool:
        """A drawn scene, whose truth is known."""
        return any(self.truth_rles)

    def by_truth(self) -> "Record":
        """The same picture with the exact masks in place of the detector's."""
        return replace(self, rles=self.truth_rles)


def read_record(row, name: str, shard: Path, pictures: Pictures) -> Record:
    """A row of a shard of the set `name`, as `itertuples` gives it, seen at its first latent."""
    shape, n = tuple(row.latents_shape), len(row.entities)
    latents, maps, daam = (
        np.frombuffer(data, "<f2").astype(np.float32)
        for data in (row.latents, row.evidence, row.daam)
    )
    latents = latents.reshape(shape)
    return Record(
        **named_by(row),
        cell="",
        subset=name,
        size=tuple(int(side) for side in row.size),
        shard=shard,
        pictures=pictures,
        latent=latents[0],
        timestep=int(row.timesteps[0]),
        rles=tuple(row.rles),
        daam=daam.reshape(n, *shape[2:]) if daam.size else np.zeros((n, *shape[2:]), np.float32),
        latents=latents,
        sources=tuple(row.sources),
        timesteps=tuple(map(int, row.timesteps)),
        evidence=maps.reshape(n, -1, *shape[2:]),
        truth_rles=tuple(row.truth),
        place=0,
    )
