"""Training a segmenter on pictures with label maps, and asking it for label maps.

A run that was stopped goes on from its last checkpoint and ends with the same weights, because
what a step sees depends on the seed and the step's number alone. Not here: architectures, files
of stages.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ml.files import atomic
from ml.metrics import confusions, miou
from ml.params import SegmenterParams
from ml.segmenters import architecture

CHECKPOINT_EVERY = 100
"""Steps; a kill costs at most half a minute at micro size."""
EVALUATE_EVERY = 150
HELD_OUT_SHARE, HELD_OUT_MOST = 0.04, 64
"""Pictures kept for the curve's mIoU. It chooses nothing, so a few are enough."""
WEIGHT_DECAY = 1e-4
MAX_GRADIENT = 1.0
PREDICT_BATCH = 50


def train(
    model: nn.Module,
    images: np.ndarray,
    labels: np.ndarray,
    params: SegmenterParams,
    progress: Path,
    seed: int,
) -> list[dict]:
    """Trains in place; returns the curve, one dict a step: step, loss, learning_rate, val_miou.

    images: uint8 (N,H,W,3) RGB, labels: uint8 (N,H,W), 255 ignored. `val_miou` (percent, over
    the foreground labels of held-out pictures against their labels as given) is None between
    evaluations. `progress` is a folder for the checkpoint; it is the caller's to remove.
    """
    _check(images, labels)
    device = pick_device()
    model.to(device, memory_format=torch.channels_last)
    optimizer, schedule = _optimizer(model, params)
    curve = _resume(progress, model, optimizer, schedule)
    kept, held = hold_out(len(images), seed)
    picture_seeds = np.random.SeedSequence([seed, 1]).generate_state(1)[0]
    bar = tqdm(total=params.steps, initial=len(curve), desc="segmenter", unit="step")
    for step in range(len(curve) + 1, params.steps + 1):
        chosen, flips = _batch(kept, params.batch_size, int(picture_seeds), step)
        pixels, truth = _tensors(images[chosen], labels[chosen], flips, device)
        model.train()
        loss = architecture(params.architecture).loss(model, pixels, truth)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT)
        rate = schedule.get_last_lr()[-1]
        optimizer.step()
        schedule.step()
        row = {"step": step, "loss": loss.item(), "learning_rate": rate, "val_miou": None}
        if len(held) and (step % EVALUATE_EVERY == 0 or step == params.steps):
            row["val_miou"] = _held_out_miou(model, images[held], labels[held])
            bar.set_postfix(loss=f"{row['loss']:.2f}", miou=f"{row['val_miou']:.1f}")
        curve.append(row)
        if step % CHECKPOINT_EVERY == 0:
            _save(progress, model, optimizer, schedule, curve)
        bar.update()
    bar.close()
    model.eval()
    return curve


@torch.inference_mode()
def predict(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Label maps uint8 (B,H,W) of pictures uint8 (B,H,W,3) RGB: 0 background, i+1 class i."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"expected pictures uint8 (B,H,W,3), got {images.dtype} {images.shape}")
    model.eval()
    device = next(model.parameters()).device
    scores = architecture(model.config.model_type).label_scores
    maps = [
        scores(model, _pixels(images[start : start + PREDICT_BATCH], device)).argmax(1)
        for start in range(0, len(images), PREDICT_BATCH)
    ]
    empty = np.zeros(images.shape[:3], np.uint8)
    return torch.cat(maps).to(torch.uint8).cpu().numpy() if maps else empty


def pick_device() -> torch.device:
    """The GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _check(images: np.ndarray, labels: np.ndarray) -> None:
    fits = images.ndim == 4 and images.shape[:3] == labels.shape and images.shape[3] == 3
    if not fits or images.dtype != np.uint8 or labels.dtype != np.uint8 or len(images) == 0:
        raise ValueError("expected pictures uint8 (N,H,W,3) and label maps uint8 (N,H,W), at least "
                         f"one, got {images.dtype} {images.shape}, {labels.dtype} {labels.shape}")


def _optimizer(model: nn.Module, params: SegmenterParams):
    """AdamW with linear decay to zero; the backbone, which came trained, learns slower."""
    backbone = list(architecture(params.architecture).backbone_of(model).parameters())
    slow = {id(weight) for weight in backbone}
    rest = [weight for weight in model.parameters() if id(weight) not in slow]
    rate = params.learning_rate
    groups = [{"params": backbone, "lr": rate * params.backbone_lr_factor}, {"params": rest}]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=WEIGHT_DECAY, fused=True)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: max(0.0, 1 - done / params.steps)
    )
    return optimizer, decay


def hold_out(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and indices kept for the curve."""
    order = np.random.default_rng([seed, 0]).permutation(n)
    held = min(HELD_OUT_MOST, int(n * HELD_OUT_SHARE))
    return order[held:], order[:held]


def _batch(kept: np.ndarray, size: int, seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a step and whether each is flipped: every picture once an epoch, in new order."""
    places = np.arange((step - 1) * size, step * size)
    epochs, within = np.divmod(places, len(kept))
    orders = {epoch: np.random.default_rng([seed, epoch]).permutation(kept)
              for epoch in np.unique(epochs)}
    chosen = np.array([orders[epoch][place] for epoch, place in zip(epochs, within, strict=True)])
    return chosen, np.random.default_rng([seed, step, 1]).random(size) < 0.5


def _pixels(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (B,H,W,3) -> float32 (B,3,H,W) in 0..1, as the backbone was trained."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 255


def _tensors(images, labels, flips, device) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = images.copy(), labels.copy()
    images[flips], labels[flips] = images[flips][:, :, ::-1], labels[flips][:, :, ::-1]
    return _pixels(images, device), torch.from_numpy(labels).to(device)


def _held_out_miou(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    classes = len(model.config.id2label) - 1
    counts = confusions(predict(model, images), labels, classes).sum(0)
    return float(100 * miou(counts, range(1, classes + 1)))


def _save(progress: Path, model, optimizer, schedule, curve: list[dict]) -> None:
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
             "schedule": schedule.state_dict(), "curve": curve}
    with atomic(progress / "checkpoint.pt") as temporary:
        torch.save(state, temporary)


def _resume(progress: Path, model, optimizer, schedule) -> list[dict]:
    """Puts a checkpoint back and returns its curve, empty where there is none."""
    file = progress / "checkpoint.pt"
    if not file.is_file():
        return []
    state = torch.load(file, weights_only=True)  # tensors and plain values, never pickled code
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return state["curve"]
