"""The pictures that the grounding module learns from and is judged on, read from the stages.

Ten thousand pictures of 512 pixels are 13 GB with their masks: both stay as they are stored, PNG
in the shards and run lengths, and are decoded where they are looked at.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ml.images.run_lengths import decode_rle
from ml.images.stored import Pictures


@dataclass(frozen=True)
class Sample:
    """One picture and its words, generated or a user's own.

    n = number of entities, in the order of the text.
    """

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
    daam: np.ndarray  # float32 (n,h,w), heat map of each word; (n,0,0) of a user's own picture
    ignored: str = field(default="", kw_only=True)
    """Run-length mask of pixels that nothing is learned from, "" for none."""

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


def named_by(row: Any) -> dict[str, Any]:
    """The fields of a Sample that a shard's row, as `itertuples` gives it, has by their names."""
    lists = {name: tuple(getattr(row, name)) for name in ("entities", "words", "phrases")}
    return lists | {"key": row.key, "text": row.text, "seed": int(row.seed), "row": row.Index}


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
