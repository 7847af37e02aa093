"""What a training step is given: its samples and its learning rate, both functions of the step."""

import numpy as np

from ml.settings.sections import VariantParams


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """The order of an epoch's samples, by their places 0..count-1."""
    return [int(p) for p in np.random.default_rng([seed, 1, epoch]).permutation(count)]


def batch_indices(count: int, size: int, seed: int, step: int) -> list[int]:
    """Places of the step's samples: every epoch a new order, batches run on over its end."""
    places = range(step * size, (step + 1) * size)
    orders = {epoch: epoch_order(count, seed, epoch) for epoch in {p // count for p in places}}
    return [orders[p // count][p % count] for p in places]


def learning_rate(own: VariantParams, step: int, steps: int) -> float:
    """The rate of a step: rises over the first `warm_up`, then stays or falls linearly to 0."""
    left = 1 - step / steps if own.schedule == "linear" else 1.0
    return own.learning_rate * min(1, (step + 1) / max(1, own.warm_up)) * left
