"""The pictures of a set, out of its shards, one at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ml.images.arrays import Labels, Masks
from ml.images.overlays import IGNORED
from ml.images.png import decode_png
from ml.store.shards import iter_shards

JPEG = b"\xff\xd8"
LABELLED = pa.schema(
    [
        ("key", pa.string()),
        ("file", pa.string()),
        ("image", pa.binary()),
        ("label", pa.binary()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("dhash", pa.string()),
        ("sha256", pa.string()),
        ("accepted", pa.bool_()),
    ]
)
"""The columns that an export needs, and `file`: for sets that are no stage's."""


@dataclass(frozen=True, eq=False)
class Picture:
    """data: the bytes of a PNG or a JPEG. label_data: those of the label map's PNG. label: uint8
    (H,W), 0 background, i+1 class i, 255 ignored. origin: where it comes from, by the names of
    `About.origin`."""

    key: str
    split: str
    data: bytes
    label_data: bytes
    label: Labels
    origin: Mapping[str, Any]

    @property
    def suffix(self) -> str:
        return "jpg" if self.data.startswith(JPEG) else "png"

    @cached_property
    def labels(self) -> list[int]:
        """Of the classes in it, ascending."""
        return [int(value) for value in np.unique(self.label) if value not in (0, IGNORED)]

    def mask(self, label: int) -> Masks:
        """bool (H,W)."""
        found: Masks = self.label == label
        return found


def iter_pictures(
    folder: Path, origin: Mapping[str, str], splits: Sequence[str], places: npt.NDArray[np.int8]
) -> Iterator[Picture]:
    """The accepted pictures of a folder.

    origin: column -> name. places: int8 (n,), which of the splits each one belongs to.
    """
    place = 0
    for frame in iter_shards(folder, ["key", "image", "label", "accepted", *origin]):
        kept = frame[frame.accepted]
        for row in kept.to_dict("records"):
            yield Picture(
                row["key"],
                splits[places[place]],
                row["image"],
                row["label"],
                decode_png(row["label"]),
                {name: row[column] for column, name in origin.items()},
            )
            place += 1
