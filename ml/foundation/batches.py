"""What the trainers of classifiers and of the detector share: batches of drawn scenes as tensors.

Not here: models, the training loop (`training.py`), the scenes themselves (`scenes.py`).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional
from torchmetrics.functional.classification import multilabel_average_precision

from ml.drawn_world.world import CLASSES
from ml.foundation.scenes import SceneSet


def to_pixels(images: np.ndarray) -> torch.Tensor:
    """uint8 (N,H,W,3) -> float32 (N,3,H,W) in 0..1."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 255


def multi_hot(classes: np.ndarray) -> torch.Tensor:
    """uint8 (N,3) class indices padded with 255 -> float32 (N,20), 1 where the class is drawn."""
    hot = torch.zeros(len(classes), len(CLASSES) + 1)
    columns = torch.from_numpy(classes.astype(np.int64)).clamp(max=len(CLASSES))
    return hot.scatter_(1, columns, 1.0)[:, :-1]


def soften(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Augmentation: pictures a little blurred, dimmed and noisy, as a generator makes them.

    pixels: float32 (N,3,H,W) in 0..1, as drawn; returns the same shape and range. Drawn scenes are
    sharper than decoded latents; a network that only ever saw the sharp ones would judge that.
    Half of the pictures are blurred (up to a 1-2-1 kernel); contrast varies by 15 %, brightness
    by 0.08, noise goes up to 0.03.
    """
    n = len(pixels)

    def uniform(low: float, high: float) -> torch.Tensor:
        values = torch.rand((n, 1, 1, 1), generator=generator)
        return (low + (high - low) * values).to(pixels.device)

    kernel = torch.tensor([1.0, 2.0, 1.0], device=pixels.device)
    kernel = (kernel[:, None] * kernel / 16).expand(3, 1, 3, 3)
    blurred = functional.conv2d(functional.pad(pixels, (1, 1, 1, 1), "replicate"), kernel, groups=3)
    pixels = torch.lerp(pixels, blurred, uniform(-1, 1).clamp(min=0))
    pixels = (pixels - 0.5) * uniform(0.85, 1.15) + 0.5 + uniform(-0.08, 0.08)
    noise = torch.randn(pixels.shape, generator=generator).to(pixels.device)
    return (pixels + noise * uniform(0, 0.03)).clamp(0, 1)


def label_loss(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    scenes: SceneSet,
    batch: int,
    generator: torch.Generator,
    device: torch.device,
) -> torch.Tensor:
    """Binary cross-entropy of the 20 classes on `batch` softened scenes. A scalar.

    logits_of: softened pixels float32 (B,3,64,64) -> (B,20).
    """
    rows = torch.randint(len(scenes), (batch,), generator=generator).numpy()
    pixels = soften(to_pixels(scenes.images[rows]), generator).to(device)
    targets = multi_hot(scenes.classes[rows]).to(device)
    return functional.binary_cross_entropy_with_logits(logits_of(pixels), targets)


def classification_figures(probabilities: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
    """Accuracy of the predicted classes, in percent.

    probabilities, targets: float32 (N,20). mean_average_precision: over the 20 classes.
    exact_set: share of pictures whose classes at 0.5 are exactly those drawn.
    """
    precision = multilabel_average_precision(
        probabilities, targets.long(), num_labels=targets.shape[1], average=None
    )
    exact = ((probabilities > 0.5) == targets.bool()).all(1).float()
    return {
        "mean_average_precision": 100 * precision.nanmean().item(),
        "exact_set": 100 * exact.mean().item(),
    }
