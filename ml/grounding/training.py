"""Training a grounding module on triplets: losses, early stopping, a checkpoint to go on from.

The batches and everything random are a function of (seed, step), so a training that was killed
and continued gives the weights of one that was not, also with another number of processes.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ml.compute import processes
from ml.compute.gradients import backward_in_parts, own_rows, same_weights
from ml.compute.precision import mixed_precision
from ml.grounding.features import Batch
from ml.grounding.losses import competition_loss, paper_loss
from ml.grounding.module import GroundingModule, masks_from_logits
from ml.metrics.iou import binary_iou
from ml.metrics.protocol_one import class_mean_iou
from ml.settings.sections import GroundingParams, VariantParams
from ml.store.files import atomic
from ml.store.shards import split
from ml.store.training_state import load_state, save_state

SCALE_PICTURES = 64
"""Training pictures from which the features' means and deviations are taken."""

SCALE_BYTES = 1_000_000_000
"""Of their features at once: 7 pictures at full size, all of them at the micro size."""

TEXT_DROPOUT = 0.6
"""Share of the words that the seeded query trains on without their text, so that it learns to
find a word by its evidence: a word never trained on has a text embedding out of nowhere. What it is
worth is not settled: on a development set two unseen objects stood at 72.2 and 68.5 mIoU with 0.6,
the paper's query at 63.9 and 76.8 (two trainings each, before `fusion.settle`)."""


class Source(Protocol):
    """Where batches come from: `ml.grounding.features.FeatureSource`, or a test's tensors."""

    def __len__(self) -> int: ...

    def counts(self, index: int) -> tuple[int, int]: ...  # words, accepted masks of a sample

    def batch(self, indices: Sequence[int]) -> Batch: ...


@dataclass
class Progress:
    """Where a training stands, beside the weights."""

    step: int = 0
    best_step: int = 0
    best_miou: float = -1.0  # percent
    without_gain: int = 0  # evaluations since the best
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    curve: list[dict] = field(default_factory=list)  # step, loss, val_miou


def train(
    module: GroundingModule,
    source: Source,
    validation: Source,
    entities: Sequence[Sequence[str]],
    params: GroundingParams,
    seed: int,
    checkpoint: Path | None = None,
    stop_after: int | None = None,
    text_dropout: float = TEXT_DROPOUT,
) -> Progress:
    """Trains in place and leaves the weights of the best validation in the module, eval mode.

    entities: class names of each validation sample's words, for the mIoU over classes.
    checkpoint: a file to write at every evaluation and to go on from when it exists. stop_after:
    stops at this step as if killed there (for tests). text_dropout: see TEXT_DROPOUT. Of several
    processes the first validates and writes. Raises ValueError without pictures.
    """
    if not len(source) or not len(validation):
        raise ValueError(
            f"expected training and validation pictures, got {len(source)} and "
            f"{len(validation)}; raise prompts.train_* or triplets.validation_share"
        )
    own = params.training(module.config.variant)
    optimizer = torch.optim.AdamW(
        module.parameters(), own.learning_rate, weight_decay=own.weight_decay
    )
    progress = _load(checkpoint, module, optimizer) if checkpoint is not None else None
    if progress is None:
        progress = Progress()
        some = _order(len(source), seed, 0)[:SCALE_PICTURES]
        parts = split(some, module.encoder.pictures_within(SCALE_BYTES))
        module.encoder.fit_scales(source.batch(part).features for part in parts)
    same_weights(module)
    losses: list[float] = []
    last, most = min(params.steps, stop_after or params.steps), params.batch_size
    with tqdm(
        total=params.steps,
        initial=progress.step,
        desc="grounding",
        unit="step",
        disable=not processes.is_main(),
    ) as bar:
        while progress.step < last and progress.without_gain < params.patience:
            module.train()
            loss, most = _step(
                module, optimizer, source, params, seed, progress.step, most, text_dropout
            )
            losses.append(loss)
            progress.step += 1
            bar.update()
            if progress.step % params.evaluate_every == 0 or progress.step == params.steps:
                _evaluate(module, validation, entities, most, progress, losses)
                losses = []
                bar.set_postfix(val_miou=f"{progress.curve[-1]['val_miou']:.1f}")
                if checkpoint is not None and processes.is_main():
                    _save(checkpoint, module, optimizer, progress)
    if progress.best_weights and stop_after is None:
        module.load_state_dict(progress.best_weights)
    module.eval()
    return progress


def _order(count: int, seed: int, epoch: int) -> list[int]:
    return np.random.default_rng([seed, 1, epoch]).permutation(count).tolist()


def batch_indices(count: int, size: int, seed: int, step: int) -> list[int]:
    """Places of the step's samples: every epoch a new order, batches run on over its end."""
    places = range(step * size, (step + 1) * size)
    orders = {epoch: _order(count, seed, epoch) for epoch in {p // count for p in places}}
    return [orders[p // count][p % count] for p in places]


def learning_rate(own: VariantParams, step: int, steps: int) -> float:
    """The rate of a step: rises over the first `warm_up`, then stays or falls linearly to 0."""
    left = 1 - step / steps if own.schedule == "linear" else 1.0
    return own.learning_rate * min(1, (step + 1) / max(1, own.warm_up)) * left


def _step(
    module: GroundingModule,
    optimizer: torch.optim.Optimizer,
    source: Source,
    params: GroundingParams,
    seed: int,
    step: int,
    most: int,
    text_dropout: float,
) -> tuple[float, int]:
    """One optimizer step; returns the batch's loss and how many pictures fit at once."""
    indices = batch_indices(len(source), params.batch_size, seed, step)
    counts = np.array([source.counts(i) for i in indices])
    longest, present = int(counts[:, 0].max()), int(counts[:, 1].sum())
    kept = torch.from_numpy(
        np.random.default_rng([seed, 2, step]).random((len(indices), longest)) >= text_dropout
    )

    def loss_of(rows: Sequence[int]) -> Tensor:
        batch = source.batch([indices[row] for row in rows])
        text = batch.text
        if module.config.competition:
            told = kept[list(rows), : text.shape[1]].to(text.device)
            text = text * told[..., None]
        with mixed_precision(params.precision, text.device.type):
            logits = module(batch.features, text, batch.valid, batch.evidence)
        return compute_loss(
            module, logits, batch, own.dice_weight, present, len(rows) / len(indices)
        )

    own = params.training(module.config.variant)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(own, step, params.steps)
    rows = own_rows(params.batch_size, "grounding.batch_size")
    loss, most = backward_in_parts(module, rows, most, loss_of)
    if own.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(module.parameters(), own.clip_norm)
    optimizer.step()
    return loss, most


def compute_loss(
    module: GroundingModule,
    logits: Tensor,
    batch: Batch,
    dice_weight: float,
    words: int | None = None,
    share: float = 1.0,
) -> Tensor:
    """The variant's loss of a batch, or of a part of one: with the batch's number of present words
    and the part's share of its pictures."""
    logits = logits.float()  # of a forward in mixed precision
    if module.config.competition:
        return competition_loss(
            logits, batch.masks, batch.present, batch.valid, dice_weight, words, share
        )
    return paper_loss(logits, batch.masks, batch.present, dice_weight, round(len(logits) / share))


@torch.no_grad()
def predict_masks(module: GroundingModule, batch: Batch) -> np.ndarray:
    """Masks of the words of a batch, bool (B,N,H,W). Leaves the module in eval mode."""
    module.eval()
    logits = module(batch.features, batch.text, batch.valid, batch.evidence)
    return masks_from_logits(logits, module.config).cpu().numpy()


def validation_miou(
    module: GroundingModule, source: Source, entities: Sequence[Sequence[str]], batch_size: int
) -> float:
    """mIoU in percent over the words that have an accepted mask; entities: classes by sample."""
    ious: list[float] = []
    classes: list[str] = []
    for start in range(0, len(source), batch_size):
        indices = range(start, min(start + batch_size, len(source)))
        batch = source.batch(indices)
        predicted, true = predict_masks(module, batch), batch.masks.cpu().numpy()
        for row, i in enumerate(indices):
            for column, entity in enumerate(entities[i]):
                if batch.present[row, column]:
                    ious.append(binary_iou(predicted[row, column], true[row, column]))
                    classes.append(entity)
    return class_mean_iou(ious, classes)


def _evaluate(
    module: GroundingModule,
    validation: Source,
    entities: Sequence[Sequence[str]],
    batch_size: int,
    progress: Progress,
    losses: list[float],
) -> None:
    miou = processes.from_main(
        validation_miou(module, validation, entities, batch_size) if processes.is_main() else None
    )
    progress.curve.append({"step": progress.step, "loss": float(np.mean(losses)), "val_miou": miou})
    if miou > progress.best_miou:
        progress.best_miou, progress.best_step, progress.without_gain = miou, progress.step, 0
        progress.best_weights = {
            k: v.detach().cpu().clone() for k, v in module.state_dict().items()
        }
    else:
        progress.without_gain += 1


def _save(
    file: Path, module: GroundingModule, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    save_state(
        file,
        {
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": vars(progress),
        },
    )


def _load(file: Path, module: GroundingModule, optimizer: torch.optim.Optimizer) -> Progress | None:
    """Puts a checkpoint back; None where there is none that is whole."""
    saved = load_state(file)
    if saved is None:
        return None
    module.load_state_dict(saved["module"])
    optimizer.load_state_dict(saved["optimizer"])
    return Progress(**saved["progress"])


def write_curve(file: Path, curve: Sequence[dict]) -> None:
    """curve.csv: step, loss (mean since the row before), val_miou (percent)."""
    with atomic(file) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["step", "loss", "val_miou"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(curve)
