"""Which synthetic pictures are kept for scoring when there is no real benchmark.

`segmenter` trains on the one part and `benchmark_scores` scores on the other, so both ask here.
Scores on them say how well the segmenter learned what the grounding module labels. They say
nothing about photographs, and every place that shows them says so.
"""

from collections.abc import Sequence

import numpy as np

SHARE = 0.1


def keep_apart(keys: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """(keys to train on, keys to score on), each in the order given; a tenth is scored on.

    Raises ValueError for fewer than two keys.
    """
    if len(keys) < 2:
        raise ValueError(
            f"{len(keys)} synthetic picture was accepted; expected two or more, since "
            "without a real benchmark (benchmark.source none) a tenth of them is kept "
            "for scoring. Ask for more prompts"
        )
    order = np.random.default_rng([seed, 2]).permutation(len(keys))
    held = set(order[: max(1, round(SHARE * len(keys)))].tolist())
    return (
        [key for place, key in enumerate(keys) if place not in held],
        [key for place, key in enumerate(keys) if place in held],
    )
