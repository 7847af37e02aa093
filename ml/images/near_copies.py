"""Near duplicates of pictures: similar hashes give candidates, pixels decide."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ml.images.arrays import Picture

SAME_DIFFERENCE = 6.0
"""Levels of 0..255. Pictures with close hashes are one picture when they differ by less on average:
above what noise or JPEG changes, well below the closest pair of different scenes
(docs/ablations.md)."""
MOST_PAIRS = 2_000_000
"""Pairs of hashes that are compared at once."""
MOST_BANDS = 15
"""With more, a band is so narrow that most hashes agree in one of them: then all are compared."""
Pairs = npt.NDArray[np.int64]


def hamming(a: str, b: str) -> int:
    """Number of bits in which two hashes differ, 0..64."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def bands_of(bits: int) -> list[np.uint64]:
    """Masks of 64-bit hashes: the bits dealt out to `bits` + 1 bands, in one of which at least two
    hashes agree that differ in at most `bits` bits; the mask 0 alone where bands would be too
    narrow to tell anything.

    Dealt out in turn, since neighbouring bits are of neighbouring pixels and often agree.
    """
    dealt = [sum(1 << bit for bit in range(band, 64, bits + 1)) for band in range(bits + 1)]
    return [np.uint64(mask) for mask in (dealt if len(dealt) <= MOST_BANDS else [0])]


class CloseHashes:
    """Which of many hashes differ in at most `bits` bits, 0..32, without comparing all pairs.

    Two that are close agree in one of `bands_of` at least, and those that agree in a band stand
    together when sorted by it.
    """

    def __init__(self, hashes: Sequence[str], bits: int) -> None:
        """hashes: 16 hex digits each."""
        self.values = np.array([int(text, 16) for text in hashes], np.uint64)
        self.bits = bits
        self.bands = bands_of(bits)
        self.orders = [np.argsort(self.values & band, kind="stable") for band in self.bands]
        count = len(self.values)
        self.places = [np.empty(count, np.int64) for _ in self.bands]  # of a row in the order
        self.ends = [np.empty(count, np.int64) for _ in self.bands]  # of the run it stands in
        for band, order, place, end in zip(
            self.bands, self.orders, self.places, self.ends, strict=True
        ):
            ranked = (self.values & band)[order]
            place[order] = np.arange(count)
            end[order] = np.searchsorted(ranked, ranked, "right")

    def parts(self) -> Iterator[Pairs]:
        """All rows 0..n-1 in consecutive parts int64 (m,), each with few enough candidates."""
        each = np.sum(self.ends, 0) - np.sum(self.places, 0)
        part = np.cumsum(each) // MOST_PAIRS
        edges = np.flatnonzero(np.diff(part)) + 1
        return iter(np.split(np.arange(len(self.values)), edges) if len(part) else [])

    def later(self, rows: Pairs) -> Pairs:
        """Pairs (i, j), i of `rows`, i < j, whose hashes are close: int64 (m,2), sorted."""
        found = [np.zeros((0, 2), np.int64)]
        for number, order in enumerate(self.orders):
            starts = self.places[number][rows] + 1
            sizes = self.ends[number][rows] - starts
            shift = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes)
            i, j = np.repeat(rows, sizes), order[np.arange(sizes.sum()) + shift]
            different = self.values[i] ^ self.values[j]
            close = np.bitwise_count(different) <= self.bits
            for earlier in self.bands[:number]:  # in which they agree: found already
                close &= (different & earlier) != 0
            found.append(np.stack([i[close], j[close]], axis=1))
        pairs = np.concatenate(found)
        return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def close_pairs(hashes: Sequence[str], bits: int) -> Pairs:
    """Pairs (i, j), i < j, whose hashes differ in at most `bits` bits: int64 (m,2), sorted.

    A pair is only a candidate (`same_picture` decides): flat pictures of one class can share
    theirs.
    """
    index = CloseHashes(hashes, bits)
    return np.concatenate([np.zeros((0, 2), np.int64), *map(index.later, index.parts())])


def near_earlier(hashes: Sequence[str], bits: int) -> npt.NDArray[np.bool_]:
    """bool (n,): an earlier hash differs in at most `bits` bits."""
    first = {text: place for place, text in reversed(list(enumerate(hashes)))}
    distinct = dict.fromkeys(hashes)  # in the order in which they come first
    near = np.array([first[text] != place for place, text in enumerate(hashes)], bool)
    places = np.array([first[text] for text in distinct], np.int64)
    index = CloseHashes(list(distinct), bits)
    for part in index.parts():
        near[places[index.later(part)[:, 1]]] = True
    return near


def same_picture(a: Picture, b: Picture, max_difference: float = SAME_DIFFERENCE) -> bool:
    """Whether two pictures uint8 (H,W,3) differ by less than so many levels on average."""
    if a.shape != b.shape:
        return False
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean()) < max_difference


def block_sums(image: Picture) -> npt.NDArray[np.int64]:
    """Sums of a picture uint8 (H,W,3) over its 4x4 blocks, channel by channel: int64 (50,), with
    height and width at its head."""
    height, width = image.shape[:2]
    rows, columns = (np.linspace(0, side, 5).astype(int) for side in (height, width))
    sums = [
        image[top:bottom, left:right].sum((0, 1), dtype=np.int64)
        for top, bottom in itertools.pairwise(rows)
        for left, right in itertools.pairwise(columns)
    ]
    return np.concatenate([[height, width], *sums])


def may_be_same(
    a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], max_difference: float = SAME_DIFFERENCE
) -> npt.NDArray[np.bool_]:
    """bool (m,): whether `same_picture` could hold, from `block_sums` int64 (m,50) of both.

    The sum of a block's differences is no more than the sum of their absolute values, so that
    False is certain.
    """
    pixels = a[:, 0] * a[:, 1] * 3
    least = np.abs(a[:, 2:] - b[:, 2:]).sum(1)
    # A leeway of one level in one pixel, since `same_picture` rounds its mean.
    may: npt.NDArray[np.bool_] = least <= max_difference * pixels + 1
    may &= np.all(a[:, :2] == b[:, :2], axis=1)
    return may
