"""Classes and pairs of classes drawn at random so that each comes as often as any other."""

from collections.abc import Sequence

import numpy as np


def balanced_singles(rng: np.random.Generator, classes: Sequence[str], count: int) -> list[str]:
    """`count` classes in random order whose numbers differ by one at most, in any prefix too."""
    rounds = -(-count // len(classes)) if count else 0
    return [classes[i] for _ in range(rounds) for i in rng.permutation(len(classes))][:count]


def balanced_pairs(
    rng: np.random.Generator,
    first: Sequence[str],
    second: Sequence[str],
    count: int,
    taken: Sequence[tuple[str, ...]] = (),
) -> list[tuple[str, str]]:
    """`count` pairs of distinct classes, one of each group, in random order of the two.

    Each time, of the pairs made of the rarest classes so far, one of the least used is drawn:
    class counts within a group differ by one at most, and pairs come back as late as they can.
    The groups are equal or disjoint. taken: pairs that stand already, counted in but not returned.
    """
    same = tuple(first) == tuple(second)
    pairs = np.array(
        [(i, j) for i in range(len(first)) for j in range(len(second)) if not same or i < j]
    ).reshape(-1, 2)
    left = np.zeros(len(first), np.int64)
    right = left if same else np.zeros(len(second), np.int64)
    used, chosen = np.zeros(len(pairs), np.int64), []
    for pair in taken:
        pick = next(k for k, (i, j) in enumerate(pairs) if {first[i], second[j]} == set(pair))
        used[pick] += 1
        left[pairs[pick, 0]] += 1
        right[pairs[pick, 1]] += 1
    for _ in range(count):
        load = left[pairs[:, 0]] + right[pairs[:, 1]]
        rarest = np.flatnonzero(load == load.min())
        rarest = rarest[used[rarest] == used[rarest].min()]
        pick = rarest[rng.integers(len(rarest))]
        i, j = pairs[pick]
        used[pick] += 1
        left[i] += 1
        right[j] += 1
        pair = (first[i], second[j])
        chosen.append(pair[::-1] if rng.random() < 0.5 else pair)
    return chosen
