"""The pictures of a training on an object store: each is fetched when it is asked for, so that no
disk of this machine holds the set.

One object has the encoded bytes of all pictures and label maps, picture after picture; a second
one, written last, says where each begins. A step's pictures come in one request each; whoever goes
through the set in order gets it in blocks.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ml.images.png import decode_png
from ml.store.files import atomic
from ml.store.objects import BLOCK
from ml.store.places import address

KEPT = 512 * 2**20
"""Bytes of pictures that stay in memory; every epoch asks for all, so that none is dropped."""


def store(file: Path, frames: Iterable[pd.DataFrame]) -> None:
    """Writes the columns `image` and `label` (bytes) of the frames, a frame at a time."""
    place, sizes = address(file), [0]
    with place.open("wb") as sink:
        for frame in frames:
            for image, label in zip(frame.image, frame.label, strict=True):
                sink.write(image)
                sink.write(label)
                sizes += [len(image), len(label)]
    with atomic(_index_of(file)) as temporary:
        np.save(temporary, np.cumsum(sizes))


def is_whole(file: Path) -> bool:
    """Whether `store` left the file."""
    index = _index_of(file)
    return index.is_file() and file.is_file() and file.stat().st_size == _offsets(file)[-1]


def open_parts(file: Path) -> tuple["Fetched", "Fetched"]:
    """Pictures and label maps of a stored file."""
    source = _Source(file, _offsets(file))
    return Fetched(source, 0), Fetched(source, 1)


def _index_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.offsets.npy")


def _offsets(file: Path) -> np.ndarray:
    """int64 (2n+1,): where picture 0, its label map, picture 1, ... begin, and the end."""
    with _index_of(file).open("rb") as handle:
        offsets: np.ndarray = np.load(handle, allow_pickle=False)
    return offsets


@dataclass
class _Block:
    """Bytes that one thread has fetched: of the pictures first..last-1."""

    first: int
    last: int
    data: bytes


class _Source:
    def __init__(self, file: Path, offsets: np.ndarray) -> None:
        self.place, self.offsets = address(file), offsets
        self.own = threading.local()  # each thread goes its own way through the set
        self.kept: dict[int, bytes] = {}  # the pictures that came first, until they fill KEPT
        self.room = KEPT

    def read(self, picture: int, part: int) -> bytes:
        start, middle, end = self.offsets[2 * picture : 2 * picture + 3]
        if (pair := self.kept.get(picture)) is None:
            block = self._block(picture)
            begin = self.offsets[2 * block.first]
            pair = block.data[start - begin : end - begin]
            if self.room >= len(pair):  # threads may fill it by a picture each too much
                self.kept[picture] = pair
                self.room -= len(pair)
        return pair[middle - start :] if part else pair[: middle - start]

    def _block(self, picture: int) -> _Block:
        known: _Block | None = getattr(self.own, "block", None)
        if known is not None and known.first <= picture < known.last:
            return known
        last = picture + 1
        if known is not None and picture == known.last:  # in order: the next ones, too
            within = self.offsets[2 * picture] + BLOCK
            last = max(last, int(np.searchsorted(self.offsets[::2], within, "right")) - 1)
        start, end = int(self.offsets[2 * picture]), int(self.offsets[2 * last])
        data: bytes = self.place.fs.cat_file(self.place.path, start=start, end=end)
        self.own.block = _Block(picture, last, data)
        return self.own.block  # type: ignore[no-any-return]


class Fetched(Sequence[np.ndarray]):
    """Pictures, or label maps, decoded at every access."""

    def __init__(self, source: _Source, part: int) -> None:
        self.source, self.part = source, part

    def __len__(self) -> int:
        return (len(self.source.offsets) - 1) // 2

    def __getitem__(self, place: int) -> np.ndarray:  # type: ignore[override]  # no slices
        if not 0 <= place < len(self):
            raise IndexError(place)
        return decode_png(self.source.read(int(place), self.part))
