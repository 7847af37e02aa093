"""Which pictures of a folder belong together: near copies, and copies of copies.

In few bytes a picture, however many there are: hashes and digests as numbers, candidates a block
at a time, pixels of some pairs at once. Not here: which earlier picture each one repeats
(`ml.images.repeats`).
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml.images.arrays import Picture
from ml.images.near_copies import Pairs, bands_of, block_sums, may_be_same, same_picture
from ml.images.png import decode_png
from ml.store.shards import iter_shards, read_frame
from ml.store.sidecars import shard_files

MOST_PAIRS = 200_000
"""Of hashes that are compared at once."""
MOST_LOADED, MOST_BYTES = 300, 200_000_000
"""Pairs whose pixels are compared at once, and bytes of these pixels."""
Numbers = npt.NDArray[np.uint64]


def near_groups(folder: Path, bits: int) -> Pairs:
    """The place of the first picture of each one's group: int64 (n,), of the accepted pictures in
    the order of the shards.

    folder: of shards with the columns `image`, `dhash`, `sha256` and `accepted`. Pictures of one
    digest are of one group, and so are those whose hashes differ in at most `bits` bits and whose
    pixels are nearly the same.
    """
    search = _Search(folder)
    if len(search.hashes):
        search.run(bits)
    return search.group


class _Search:
    """The facts of all pictures, and the groups that are known so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        hashes, digests, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)], [0]
        for frame in iter_shards(folder, ["dhash", "sha256", "accepted"]):
            kept = frame[frame.accepted]
            hashes.append(np.array([int(text, 16) for text in kept.dhash], np.uint64))
            # a part of the digest: two pictures that share it by chance would share a side
            digests.append(np.array([int(text[:16], 16) for text in kept.sha256], np.uint64))
            counts.append(len(kept))
        self.hashes = np.concatenate(hashes)
        self.starts = np.cumsum(counts)  # of the shards' pictures
        _, first, own = np.unique(np.concatenate(digests), return_index=True, return_inverse=True)
        self.group = first[own].astype(np.int64)
        self.distinct = np.sort(first)

    def run(self, bits: int) -> None:
        values = self.hashes[self.distinct]
        rows = self.distinct[has_close(values, bits)]
        sums = self._sums(rows)
        largest = 3 * int(sums[:, :2].astype(np.int64).prod(1).max(initial=1))
        most = max(1, min(MOST_LOADED, MOST_BYTES // (2 * largest)))
        for block in close_blocks(self.hashes[rows], bits):
            pairs = block[self._apart(rows[block])]
            pairs = rows[pairs[may_be_same(sums[pairs[:, 0]], sums[pairs[:, 1]])]]
            while len(pairs):
                part, pairs = pairs[:most], pairs[most:]
                self._compare(part)
                pairs = pairs[self._apart(pairs)]

    def _apart(self, pairs: Pairs) -> npt.NDArray[np.bool_]:
        """bool (m,): the two are not known to be of one group."""
        apart: npt.NDArray[np.bool_] = self.group[pairs[:, 0]] != self.group[pairs[:, 1]]
        return apart

    def _sums(self, rows: Pairs) -> npt.NDArray[np.int64]:
        """`block_sums` of these pictures, int64 (m,50)."""
        sums = np.zeros((len(rows), 50), np.int64)
        for place, (_, picture) in enumerate(self._pictures(rows)):
            sums[place] = block_sums(picture)
        return sums

    def _compare(self, pairs: Pairs) -> None:
        pixels = dict(self._pictures(np.unique(pairs)))
        for i, j in pairs.tolist():
            one, other = sorted((self.group[i], self.group[j]))
            if one != other and same_picture(pixels[i], pixels[j]):
                self.group[self.group == other] = one

    def _pictures(self, rows: Pairs) -> Iterator[tuple[int, Picture]]:
        """(row, picture) of ascending rows; a shard is read once."""
        shards = np.searchsorted(self.starts, rows, "right") - 1
        files = shard_files(self.folder)
        for shard in np.unique(shards):
            frame = read_frame(files[shard], ["image", "accepted"])
            data = frame.image[frame.accepted].to_numpy()
            for row in rows[shards == shard].tolist():
                yield row, decode_png(data[row - self.starts[shard]])


def has_close(values: Numbers, bits: int) -> npt.NDArray[np.bool_]:
    """bool (n,): another one of hashes uint64 (n,) differs in at most `bits` bits. One stands for
    all that are equal, so that the pairs are few however many are."""
    distinct, own, counts = np.unique(values, return_inverse=True, return_counts=True)
    close = counts > 1
    for pairs in close_blocks(distinct, bits):
        close[pairs.ravel()] = True
    found: npt.NDArray[np.bool_] = close[own]
    return found


def close_blocks(values: Numbers, bits: int) -> Iterator[Pairs]:
    """Pairs (i, j) of hashes uint64 (n,) that differ in at most `bits` bits, 0..32: each once,
    i < j, int64 (m,2), in blocks.

    Two close hashes agree in one of `bands_of` at least, and stand in one run when sorted by it.
    """
    bands = bands_of(bits)
    for number, band in enumerate(bands):
        order = np.argsort(values & band, kind="stable")
        ranked = (values & band)[order]
        edges = np.flatnonzero(np.diff(ranked)) + 1
        for start, end in zip(np.r_[0, edges], np.r_[edges, len(values)], strict=True):
            if end - start > 1:
                yield from _in_run(values, order[start:end], bits, bands[:number])


def _in_run(values: Numbers, run: Pairs, bits: int, earlier: list[np.uint64]) -> Iterator[Pairs]:
    """The close pairs among hashes that agree in a band. earlier: bands in which a pair that agrees
    was found already."""
    each = max(1, MOST_PAIRS // len(run))
    for start in range(0, len(run), each):
        i, j = (side.ravel() for side in np.meshgrid(run[start : start + each], run, indexing="ij"))
        different = values[i] ^ values[j]
        close = (i < j) & (np.bitwise_count(different) <= bits)
        for band in earlier:
            close &= (different & band) != 0
        if close.any():
            yield np.stack([i[close], j[close]], axis=1)
