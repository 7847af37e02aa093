"""Masks that a grounding module makes of a batch, and its mIoU on validation pictures."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from ml.grounding.features import Batch
from ml.grounding.module import GroundingModule, masks_from_logits
from ml.metrics.iou import binary_iou
from ml.metrics.protocol_one import class_mean_iou


class Source(Protocol):
    """Where batches come from: `ml.grounding.features.FeatureSource`, or a test's tensors."""

    def __len__(self) -> int: ...

    def counts(self, index: int) -> tuple[int, int]: ...  # words, accepted masks of a sample

    def batch(self, indices: Sequence[int]) -> Batch: ...


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
