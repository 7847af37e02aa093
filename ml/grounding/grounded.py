"""Masks of several pictures in arrays, and how those of batches are put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grounded:
    """One entry a picture; n_i words each, in the order they were asked for."""

    images: np.ndarray  # uint8 (B,H,W,3) RGB
    masks: list[np.ndarray]  # bool (n_i,H,W)
    probabilities: list[np.ndarray]  # float32 (n_i,H,W) in 0..1; sums to <= 1 with competition
    presence: list[np.ndarray] | None = None  # float32 (n_i,), `ml.grounding.presence`, if asked


def joined(images: np.ndarray, parts: Sequence[Grounded]) -> Grounded:
    return Grounded(
        images,
        [mask for part in parts for mask in part.masks],
        [soft for part in parts for soft in part.probabilities],
    )


def scattered(
    found: Grounded, there: Sequence[np.ndarray], scores: list[np.ndarray], side: int
) -> Grounded:
    """Masks of the words that are there among those of all, the others empty. found: an entry for
    each picture that has such a word."""
    filled: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for every, own, kind in zip(
        filled, (found.masks, found.probabilities), (bool, np.float32), strict=True
    ):
        left = iter(own)
        for here in there:
            every.append(np.zeros((len(here), side, side), kind))
            if here.any():
                every[-1][here] = next(left)
    return Grounded(found.images, *filled, presence=scores)
