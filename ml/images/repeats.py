"""Which pictures of a folder repeat an earlier one, with few of them in memory at once."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml.images.near_copies import CloseHashes, Pairs, block_sums, may_be_same, same_picture
from ml.images.near_groups import has_close
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
    first: dict[str, int] = {}
    equal = [first.setdefault(digest, place) for place, digest in enumerate(digests)]
    kept = list(first.values())
    search = _Search(folder, [keys[place] for place in kept], [hashes[k] for k in kept], bits)
    original = dict(zip(kept, (kept[row] for row in search.originals()), strict=True))
    return {
        keys[place]: keys[original[own]]
        for place, own in enumerate(equal)
        if original[own] != place
    }


class _Search:
    """The search among pictures with different pixels."""

    def __init__(self, folder: Path, keys: Sequence[str], hashes: Sequence[str], bits: int) -> None:
        self.folder, self.keys = folder, keys
        self.index = CloseHashes(hashes, bits)
        self.original = np.arange(len(keys))  # the first picture that each repeats, or itself

    def originals(self) -> list[int]:
        self._look_at(np.flatnonzero(has_close(self.index.values, self.index.bits)))
        for part in self.index.parts():
            pairs = self._open(self.index.later(part[self.original[part] == part]))
            a, b = (self.sums[self.slot[pairs[:, side]]] for side in (0, 1))
            self._compare(pairs[may_be_same(a, b)])
        return self.original.tolist()

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

    def _open(self, pairs: Pairs) -> Pairs:
        """Those of which neither is known to be a repeat."""
        return pairs[np.all(self.original[pairs] == pairs, axis=1)]

    def _compare(self, pairs: Pairs) -> None:
        """Decides sorted pairs by their pixels, some at a time."""
        largest = 3 * int(self.sums[:, :2].prod(1).max(initial=1))
        most = max(1, MOST_BYTES // (2 * largest))
        while len(pairs):
            part, pairs = pairs[:most], pairs[most:]
            keys = [self.keys[row] for row in np.unique(part)]
            pixels = load_pictures(self.folder, keys, {self.shard[key] for key in keys})
            for i, j in part:
                open_ = self.original[i] == i and self.original[j] == j
                if open_ and same_picture(pixels[self.keys[i]], pixels[self.keys[j]]):
                    self.original[j] = i
            pairs = self._open(pairs)
