"""From rows of raw scores to a figure with its spread over seeds and its interval.

Raw rows, one a mask: method, split, seed, source (generated, noised, inverted), judge (detector,
truth), cell, key (of the picture), entity, iou (0..1). A method without training has seed 0 alone.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ml.grounding.scores import iou_counts, percent
from ml.paper.blocks import Cell

RAW = ("method", "split", "seed", "source", "judge", "cell", "key", "entity", "iou")
Statistic = Callable[[np.ndarray], np.ndarray]


def mean_iou(rows: pd.DataFrame, resamples: int, paper: float | None = None) -> Cell:
    """mIoU in percent (mean over classes of the mean IoU of a class's masks), the mean over splits
    and seeds. rows: of one method and one cell, with split, seed, key, entity, iou."""
    stacks = []
    for _, own in rows.groupby("split", sort=True):
        seeds = [part.sort_values(["key", "entity"]) for _, part in own.groupby("seed", sort=True)]
        stacks.append(np.stack([iou_counts(part.iou, part.entity, part.key)[0] for part in seeds]))
    return figure(stacks, percent, resamples, paper)


def figure(
    stacks: Sequence[np.ndarray], statistic: Statistic, resamples: int, paper: float | None = None
) -> Cell:
    """The mean over splits and seeds of a statistic of counts summed over pictures.

    stacks: one a split, (seeds, pictures, *rest), e.g. confusions. Spread: the standard deviation
    (n - 1) over seeds of the mean over splits; None with one seed. Interval: 95 %, percentiles of
    resamples in which pictures and seeds are both drawn anew, pictures alike for every seed.
    """
    by_seed = np.mean([[float(statistic(own.sum(0))) for own in stack] for stack in stacks], axis=0)
    rng, drawn = np.random.default_rng(0), []
    for stack in stacks:
        seeds, pictures = stack.shape[:2]
        share = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
        times = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples)
        times = times.astype(np.float64)
        scores = np.stack([statistic((times @ own.reshape(pictures, -1)).reshape(
            resamples, *own.shape[1:])) for own in stack], axis=1)
        drawn.append((share * scores).sum(1))
    low, high = np.nanpercentile(np.mean(drawn, axis=0), [2.5, 97.5])
    spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
    return Cell(float(by_seed.mean()), spread, float(low), float(high), paper)
