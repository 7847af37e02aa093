"""Near duplicates of pictures: similar hashes give candidates, pixels decide."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ml.images.arrays import Picture

SAME_DIFFERENCE = 6.0
"""Levels of 0..255. Pictures with close hashes are one picture when they differ by less on average:
above what noise or JPEG changes, well below the closest pair of different scenes
(docs/ablations.md)."""


def hamming(a: str, b: str) -> int:
    """Number of bits in which two hashes differ, 0..64."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def close_pairs(
    hashes: Sequence[str], bits: int, others: Sequence[str] | None = None
) -> npt.NDArray[np.int64]:
    """Pairs whose hashes differ in at most `bits` bits: int64 (m,2), sorted.

    Within one list, i < j; with `others`, i indexes `hashes` and j `others`. A pair is only a
    candidate (`same_picture` decides): flat pictures of one class can share theirs.
    """
    rows = _as_integers(hashes)
    columns = rows if others is None else _as_integers(others)
    found = []
    for i, value in enumerate(rows):
        start = i + 1 if others is None else 0
        close = np.flatnonzero(np.bitwise_count(columns[start:] ^ value) <= bits) + start
        found.append(np.stack([np.full(len(close), i, np.int64), close], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def _as_integers(hashes: Sequence[str]) -> npt.NDArray[np.uint64]:
    return np.array([int(text, 16) for text in hashes], np.uint64)


def same_picture(a: Picture, b: Picture, max_difference: float = SAME_DIFFERENCE) -> bool:
    """Whether two pictures uint8 (H,W,3) differ by less than so many levels on average."""
    if a.shape != b.shape:
        return False
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean()) < max_difference
