"""Training a grounding module on triplets: losses, early stopping, a checkpoint to resume from.

The batches and everything random are a function of (seed, step), so a training that was killed
and continued gives the weights of one that was not, also with another number of processes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ml.compute import processes
from ml.compute.devices import on_device
from ml.compute.gradients import backward_in_parts, own_rows, same_weights
from ml.compute.losses import Losses
from ml.compute.precision import mixed_precision
from ml.grounding.features import Batch
from ml.grounding.losses import competition_loss, paper_loss
from ml.grounding.module import GroundingModule
from ml.grounding.progress import Progress, load_progress, save_progress
from ml.grounding.schedule import batch_indices, epoch_order, learning_rate
from ml.grounding.validation import Source, validation_miou
from ml.settings.sections import GroundingParams
from ml.store.shards import split

SCALE_PICTURES = 64
"""Training pictures from which the features' means and deviations are taken."""
SCALE_BYTES = 1_000_000_000
"""Of their features at once: 7 pictures at full size, all of them at the micro size."""
TEXT_DROPOUT = 0.6
"""Share of the words that the seeded query trains on without their text, so that it learns to
find a word by its evidence: the text embedding of a word never trained on is arbitrary
(docs/ablations.md#text-dropout-of-the-seeded-query)."""


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
    progress = load_progress(checkpoint, module, optimizer) if checkpoint is not None else None
    if progress is None:
        progress = Progress()
        some = epoch_order(len(source), seed, 0)[:SCALE_PICTURES]
        parts = split(some, module.encoder.pictures_within(SCALE_BYTES))
        module.encoder.fit_scales(source.batch(part).features for part in parts)
    same_weights(module)
    losses = Losses(type(module).__name__)
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
            loss, most = optimizer_step(
                module, optimizer, source, params, seed, progress.step, most, text_dropout
            )
            losses.add(loss)
            progress.step += 1
            bar.update()
            if progress.step % params.evaluate_every == 0 or progress.step == params.steps:
                _evaluate(module, validation, entities, most, progress, losses.taken())
                bar.set_postfix(val_miou=f"{progress.curve[-1]['val_miou']:.1f}")
                if checkpoint is not None and processes.is_main():
                    save_progress(checkpoint, module, optimizer, progress)
    if progress.best_weights and stop_after is None:
        module.load_state_dict(progress.best_weights)
    module.eval()
    return progress


def optimizer_step(
    module: GroundingModule,
    optimizer: torch.optim.Optimizer,
    source: Source,
    params: GroundingParams,
    seed: int,
    step: int,
    most: int,
    text_dropout: float,
) -> tuple[Tensor, int]:
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
            shown = on_device(kept[list(rows), : text.shape[1]], text.device)
            text = text * shown[..., None]
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
            logits,
            batch.masks,
            batch.present,
            batch.valid,
            dice_weight,
            words,
            share,
            batch.ignored,
        )
    pictures = round(len(logits) / share)
    return paper_loss(logits, batch.masks, batch.present, dice_weight, pictures, batch.ignored)


def _evaluate(
    module: GroundingModule,
    validation: Source,
    entities: Sequence[Sequence[str]],
    batch_size: int,
    progress: Progress,
    losses: list[float],
) -> None:
    miou = processes.from_main(
        validation_miou(module, validation, entities, batch_size) if processes.is_main() else 0.0
    )
    progress.curve.append({"step": progress.step, "loss": float(np.mean(losses)), "val_miou": miou})
    if miou > progress.best_miou:
        progress.best_miou, progress.best_step, progress.without_gain = miou, progress.step, 0
        progress.best_weights = {
            k: v.detach().cpu().clone() for k, v in module.state_dict().items()
        }
    else:
        progress.without_gain += 1
