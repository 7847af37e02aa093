"""From rows of raw scores to a figure with its spread over seeds and its interval.

Raw rows, one a mask: method, split, seed, source (generated, noised, inverted), judge (detector,
truth), cell, key (of the picture), entity, iou (0..1). A method without training has seed 0 alone.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ml.metrics.iou import binary_iou
from ml.metrics.protocol_one import iou_counts, percent
from ml.studies.blocks import Cell
from ml.studies.records import Record
from ml.words.cells import cell_of
from ml.words.vocabulary import Vocabulary

RAW = ("method", "split", "seed", "source", "judge", "cell", "key", "entity", "iou")
Statistic = Callable[[np.ndarray], np.ndarray]


def raw_rows(record: Record, found: np.ndarray, vocabulary: Vocabulary, common: dict) -> list[dict]:
    """A picture's raw rows, one a word and judge. Beside RAW, against the same judge: pixels of the
    mask on its own object, on another word's and on neither.

    found: bool (>= n,H,W), the masks. common: columns that all of the rows share.
    """
    judges = {"detector": record.masks} if record.whole else {}
    if record.is_drawn:
        judges["truth"] = record.truth
    rows = []
    for judge, true in judges.items():
        for i, entity in enumerate(record.entities):
            others = np.delete(true, i, 0).any(0) & ~true[i]
            rows.append(
                common
                | {
                    "source": record.source,
                    "judge": judge,
                    "cell": cell_of(record.entities, vocabulary.unseen),
                    "key": record.key,
                    "entity": entity,
                    "iou": binary_iou(found[i], true[i]),
                    "other": next((e for e in record.entities if e != entity), ""),
                    "on_own": int((found[i] & true[i]).sum()),
                    "on_other": int((found[i] & others).sum()),
                    "on_neither": int((found[i] & ~true[i] & ~others).sum()),
                    "own": int(true[i].sum()),
                }
            )
    return rows


def mean_iou(rows: pd.DataFrame, resamples: int, paper: float | None = None) -> Cell:
    """mIoU in percent (mean over classes of the mean IoU of a class's masks), the mean over splits
    and seeds. rows: of one method and one cell, with split, seed, key, entity, iou."""
    stacks = [_seed_counts(own) for _, own in rows.groupby("split", sort=True)]
    return figure(stacks, percent, resamples, paper, keys=pictures_of(rows))


def pictures_of(rows: pd.DataFrame) -> list[np.ndarray]:
    """Keys of the pictures of each split, ascending, as the counts of `figure` stand."""
    return [np.unique(own.key.to_numpy()) for _, own in rows.groupby("split", sort=True)]


def paired_counts(a: pd.DataFrame, b: pd.DataFrame) -> list[np.ndarray]:
    """Counts of two methods or judges on the same masks, for `figure` and `difference`: one array
    (seeds, pictures, 2, 2, C) a split. What has one seed alone stands beside each of the other's.

    Raises ValueError when they are not of the same pictures and classes.
    """
    stacks = []
    for split in sorted(set(a.split)):
        pair = [_seed_counts(rows[rows.split == split]) for rows in (a, b)]
        seeds = max(len(own) for own in pair)
        pair = [np.repeat(own, seeds, 0) if len(own) == 1 else own for own in pair]
        keys = [set(rows[rows.split == split].key) for rows in (a, b)]
        if pair[0].shape != pair[1].shape or keys[0] != keys[1]:
            raise ValueError(
                f"split {split}: counts {pair[0].shape} and {pair[1].shape} of {len(keys[0])} and "
                f"{len(keys[1])} pictures, {len(keys[0] & keys[1])} of them in both; expected "
                "rows of the same pictures, classes and seeds"
            )
        stacks.append(np.stack(pair, axis=2))
    return stacks


def _seed_counts(rows: pd.DataFrame) -> np.ndarray:
    """(seeds, pictures, 2, C) of one split's rows."""
    return np.stack(
        [iou_counts(own.iou, own.entity, own.key)[0] for _, own in rows.groupby("seed", sort=True)]
    )


def sums(rows: pd.DataFrame, *values: Sequence[float]) -> np.ndarray:
    """(seeds, pictures, len(values)): values, one a row each, added up by seed and picture."""
    keys, picture = np.unique(rows.key.to_numpy(), return_inverse=True)
    seeds, seed = np.unique(rows.seed.to_numpy(), return_inverse=True)
    counts = np.zeros((len(seeds), len(keys), len(values)))
    for column, own in enumerate(values):
        np.add.at(counts, (seed, picture, column), np.asarray(own, float))
    return counts


def ratio(counts: np.ndarray) -> np.ndarray:
    """Counts (...,2) to their quotient in percent, nan of nothing."""
    top, bottom = counts[..., 0], counts[..., 1]
    return 100 * np.divide(top, bottom, out=np.full(np.shape(top), np.nan), where=bottom > 0)


def difference(counts: np.ndarray) -> np.ndarray:
    """mIoU of the first less that of the second, in points, of paired counts (..., 2, 2, C)."""
    return percent(counts[..., 0, :, :]) - percent(counts[..., 1, :, :])


def figure(
    stacks: Sequence[np.ndarray],
    statistic: Statistic,
    resamples: int,
    paper: float | None = None,
    *,
    keys: Sequence[np.ndarray] | None = None,
) -> Cell:
    """The mean over splits and seeds of a statistic of counts summed over pictures.

    stacks: one a split, (seeds, pictures, *rest), e.g. confusions. Spread: the standard deviation
    (n - 1) over seeds of the mean over splits; None with one seed. Interval: 95 %, percentiles of
    resamples in which pictures and seeds are both drawn anew, pictures alike for every seed. keys:
    those of each split's pictures (`pictures_of`): a picture that several splits judge is drawn
    as often in each. Raises ValueError for several splits without them.
    """
    if keys is None:
        if len(stacks) > 1:
            raise ValueError(f"expected the pictures' keys of {len(stacks)} splits, got none")
        keys = [np.arange(stack.shape[1]) for stack in stacks]
    by_seed = np.mean([[float(statistic(own.sum(0))) for own in stack] for stack in stacks], axis=0)
    rng, drawn = np.random.default_rng(0), []
    every = np.unique(np.concatenate(keys))
    drawings: np.ndarray | None = None
    for stack, own_keys in zip(stacks, keys, strict=True):
        seeds, pictures = stack.shape[:2]
        share = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
        if (
            drawings is None
        ):  # after the first split's seeds: one split's intervals stay as they were
            drawings = rng.multinomial(len(every), np.full(len(every), 1 / len(every)), resamples)
        times = drawings[:, np.searchsorted(every, own_keys)].astype(np.float64)
        scores = np.stack(
            [
                statistic((times @ own.reshape(pictures, -1)).reshape(resamples, *own.shape[1:]))
                for own in stack
            ],
            axis=1,
        )
        drawn.append((share * scores).sum(1))
    low, high = np.nanpercentile(np.mean(drawn, axis=0), [2.5, 97.5])
    spread = float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
    return Cell(float(by_seed.mean()), spread, float(low), float(high), paper)
