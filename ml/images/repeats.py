"""Which pictures of a folder repeat an earlier one, and which belong together, with few of them in
memory at once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml.images.near_copies import CloseHashes, Pairs, block_sums, may_be_same, same_picture
from ml.images.png import decode_png
from ml.images.stored import load_pictures
from ml.store.shards import iter_shards
from ml.store.sidecars import shard_files

MOST_BYTES = 200_000_000
"""Of decoded pictures that are compared at once."""


def find_repeats(
    folder: Path, keys: Sequence[str], hashes: Sequence[str], digests: Sequence[str], bits: int
) -> dict[str, str]:
    """{key: key of the first picture that it repeats}; a repeat makes no further repeats.

    folder: of shards with the columns `key` and `image`. keys, hashes, digests (of the pixels): of
    the pictures to compare, in their order. Pictures of one digest are equal. Those whose hashes
    differ in at most `bits` bits are compared pixel by pixel, since two flat pictures of one class
    can share their hash.
    """
    equal, kept = _equal(digests)
    search = _Search(folder, [keys[place] for place in kept], [hashes[k] for k in kept], bits)
    original = dict(zip(kept, (kept[row] for row in search.originals()), strict=True))
    return {
        keys[place]: keys[original[own]]
        for place, own in enumerate(equal)
        if original[own] != place
    }


def near_groups(
    folder: Path, keys: Sequence[str], hashes: Sequence[str], digests: Sequence[str], bits: int
) -> Pairs:
    """The place of the first picture of each one's group: int64 (n,).

    Near copies, as `find_repeats` compares them, are of one group, and so are the copies of a copy,
    however little they look like the first one. Arguments as there.
    """
    equal, kept = _equal(digests)
    search = _Groups(folder, [keys[place] for place in kept], [hashes[k] for k in kept], bits)
    first = np.array(kept, np.int64)[search.originals()]
    groups: Pairs = first[np.searchsorted(kept, equal)]
    return groups


def _equal(digests: Sequence[str]) -> tuple[list[int], list[int]]:
    """(for each picture the place of the first one with its digest, these places in order)."""
    first: dict[str, int] = {}
    equal = [first.setdefault(digest, place) for place, digest in enumerate(digests)]
    return equal, list(first.values())


class _Search:
    """The search among pictures with different pixels."""

    def __init__(self, folder: Path, keys: Sequence[str], hashes: Sequence[str], bits: int) -> None:
        self.folder, self.keys, self.hashes = folder, keys, hashes
        self.index = CloseHashes(hashes, bits)
        self.original = np.arange(len(keys))  # the first picture that each repeats, or itself

    def originals(self) -> list[int]:
        self._look_at(np.flatnonzero(self._has_close()))
        for part in self.index.parts():
            pairs = self._open(self.index.later(self._asking(part)))
            a, b = (self.sums[self.slot[pairs[:, side]]] for side in (0, 1))
            self._compare(pairs[may_be_same(a, b)])
        return self.original.tolist()

    def _has_close(self) -> npt.NDArray[np.bool_]:
        """bool (n,): another hash is close. One row stands for all of one hash, so that the pairs
        are few however many hashes are equal."""
        rows: dict[str, int] = {}
        own = np.array([rows.setdefault(text, len(rows)) for text in self.hashes], np.int64)
        close = np.bincount(own, minlength=len(rows)) > 1
        distinct = CloseHashes(list(rows), self.index.bits)
        for part in distinct.parts():
            close[distinct.later(part).ravel()] = True
        found: npt.NDArray[np.bool_] = close[own]
        return found

    def _look_at(self, rows: npt.NDArray[np.int64]) -> None:
        """Reads the pictures of these rows, a shard at a time, for `may_be_same`."""
        self.slot = np.zeros(len(self.keys), np.int64)
        self.slot[rows] = np.arange(len(rows))
        self.sums = np.zeros((len(rows), 50), np.int64)
        self.shard: dict[str, Path] = {}
        slots = {self.keys[row]: slot for slot, row in enumerate(rows.tolist())}
        frames = iter_shards(self.folder, ["key", "image"]) if slots else iter(())
        for path, frame in zip(shard_files(self.folder), frames, strict=False):
            for key, data in zip(frame.key, frame.image, strict=True):
                if key in slots:
                    self.sums[slots[key]] = block_sums(decode_png(data))
                    self.shard[key] = path

    def _asking(self, rows: Pairs) -> Pairs:
        """Those of the rows that may have repeats of their own."""
        asking: Pairs = rows[self.original[rows] == rows]
        return asking

    def _open(self, pairs: Pairs) -> Pairs:
        """Those of which neither is known to be a repeat."""
        return pairs[np.all(self.original[pairs] == pairs, axis=1)]

    def _join(self, i: int, j: int) -> None:
        """Notes that the picture j repeats i."""
        self.original[j] = i

    def _compare(self, pairs: Pairs) -> None:
        """Decides sorted pairs by their pixels, some at a time."""
        largest = 3 * int(self.sums[:, :2].prod(1).max(initial=1))
        most = max(1, MOST_BYTES // (2 * largest))
        while len(pairs):
            part, pairs = pairs[:most], pairs[most:]
            keys = [self.keys[row] for row in np.unique(part)]
            pixels = load_pictures(self.folder, keys, {self.shard[key] for key in keys})
            for pair in part:
                i, j = pair
                if len(self._open(pair[None])) and same_picture(
                    pixels[self.keys[i]], pixels[self.keys[j]]
                ):
                    self._join(i, j)
            pairs = self._open(pairs)


class _Groups(_Search):
    """The same search, in which repeats have repeats: `original` is the first of the group."""

    def _asking(self, rows: Pairs) -> Pairs:
        return rows

    def _open(self, pairs: Pairs) -> Pairs:
        """Those that are not known to be of one group."""
        apart: Pairs = pairs[self.original[pairs[:, 0]] != self.original[pairs[:, 1]]]
        return apart

    def _join(self, i: int, j: int) -> None:
        one, other = sorted((self.original[i], self.original[j]))
        self.original[self.original == other] = one
