"""`python -m benchmarks.coverage`: how often the studies' 95 % intervals hold the true mean.

Simulated: scores of pictures and of three trainings with a known mean, normal, through
`ml.studies.scores`. A bootstrap over three trainings is too narrow, which matters where they differ
most.
"""

import sys

import numpy as np

from ml.errors import exit_path
from ml.studies.scores import figure, ratio

TRUE, SEEDS, PICTURES, TRIALS, RESAMPLES = 60.0, 3, 60, 1000, 300
BY_PICTURE = 5.0
"""Standard deviation over pictures, in points."""


def held(rng: np.random.Generator, splits: int, by_seed: float) -> bool:
    """Whether one simulated study's interval holds TRUE. by_seed: deviation over trainings."""
    stacks = []
    for _ in range(splits):
        scores = TRUE + by_seed * rng.normal(size=(SEEDS, 1))
        scores = scores + BY_PICTURE * rng.normal(size=(1, PICTURES))
        stacks.append(np.stack([scores / 100, np.ones_like(scores)], axis=-1))
    keys = [np.arange(PICTURES) + split * PICTURES for split in range(splits)]
    found = figure(stacks, ratio, RESAMPLES, keys=keys)
    return bool(found.low <= TRUE <= found.high)


def main() -> None:
    rng = np.random.default_rng(0)
    print("| splits | deviation over trainings, points | intervals that hold the mean |")
    print("|---|---|---|")
    for splits in (1, 3):
        for by_seed in (0.5, 1.5, 4.5):
            share = np.mean([held(rng, splits, by_seed) for _ in range(TRIALS)])
            print(f"| {splits} | {by_seed} | {100 * share:.0f} % |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
