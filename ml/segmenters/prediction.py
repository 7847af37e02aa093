"""Label maps of pictures, from a trained segmenter."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from ml.compute.batching import Batches
from ml.compute.gradients import ADVICE
from ml.segmenters import architecture

PREDICT_BATCH, PREDICT_PIXELS = 50, 2**21
"""Pictures at once, and their pixels in sum: eight of 512x512."""


@torch.inference_mode()
def predict(model: PreTrainedModel, images: np.ndarray) -> np.ndarray:
    """Label maps uint8 (B,H,W) of pictures uint8 (B,H,W,3) RGB: 0 background, i+1 class i.

    Whole pictures, as large as they are; as many at once as PREDICT_PIXELS and memory allow.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"expected pictures uint8 (B,H,W,3), got {images.dtype} {images.shape}")
    model.eval()
    device = next(model.parameters()).device
    scores = architecture(model.config.model_type).label_scores
    size = images.shape[1] * images.shape[2]
    most = max(1, min(PREDICT_BATCH, PREDICT_PIXELS // max(size, 1)))

    def label(places: Sequence[int]) -> np.ndarray:
        part = images[places[0] : places[-1] + 1]
        found: torch.Tensor = scores(model, to_pixels(part, device))
        return found.argmax(1).to(torch.uint8).cpu().numpy()

    maps = [found for _, found in Batches(most, ADVICE).run(range(len(images)), label)]
    return np.concatenate([np.empty((0, *images.shape[1:3]), np.uint8), *maps])


def to_pixels(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (B,H,W,3) -> float32 (B,3,H,W) in 0..1."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 255


def predict_each(model: PreTrainedModel, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Label maps uint8 (H,W) of pictures uint8 (H,W,3); those of one size go together."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image.shape, []).append(place)
    found: dict[int, np.ndarray] = {}
    for group in places.values():
        found |= zip(group, predict(model, np.stack([images[i] for i in group])), strict=True)
    return [found[place] for place in range(len(images))]
