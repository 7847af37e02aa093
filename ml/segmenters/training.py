"""Training a segmenter on pictures with label maps, and asking it for label maps.

A run that was stopped goes on from its last checkpoint and ends with the same weights, because
what a step sees depends on the seed and the step's number alone; so it may also go on with another
number of processes. Not here: architectures, what is done to the pictures, files of stages.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from ml.compute import processes
from ml.compute.batching import Batches
from ml.compute.devices import own_device
from ml.compute.gradients import ADVICE, backward_in_parts, own_rows, same_weights
from ml.compute.precision import mixed_precision
from ml.metrics.iou import confusions, miou
from ml.segmenters import architecture
from ml.segmenters.pictures import batches, check_pictures
from ml.settings.sections import SegmenterParams
from ml.store.training_state import load_state, save_state

CHECKPOINT_EVERY = 100
"""Steps; a kill costs at most half a minute at micro size."""
CHECKPOINT = "checkpoint.pt"
EVALUATE_EVERY = 150
HELD_OUT_SHARE, HELD_OUT_MOST = 0.04, 64
"""Pictures kept for the curve's mIoU. It chooses nothing, so a few are enough."""
MAX_GRADIENT = 1.0
PREDICT_BATCH, PREDICT_PIXELS = 50, 2**21
"""Pictures at once, and their pixels in sum: eight of 512x512."""


class Learner:
    """A model with all that changes while it learns; `state_dict` is a checkpoint's content."""

    def __init__(self, model: nn.Module, params: SegmenterParams, device: torch.device) -> None:
        self.model, self.params, self.device = model, params, device
        self.arch = architecture(params.architecture)
        backbone = self.arch.backbone_of(model)
        self.frozen = [
            part
            for part in backbone.modules()
            if isinstance(part, nn.BatchNorm2d) and params.freeze_batch_norm
        ]
        for part in self.frozen:
            part.requires_grad_(False)
        self.optimizer, self.schedule = _optimizer(model, backbone, params)
        self.scaler = torch.amp.GradScaler(device.type, enabled=params.precision == "float16")
        self.average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(params.ema_decay))
            if params.ema_decay
            else None
        )
        self.most = params.batch_size  # pictures at once; less after running out of memory

    def step(self, images: np.ndarray, labels: np.ndarray, seed: int) -> float:
        """One optimizer step on this process's part of a batch; returns the whole batch's loss.

        images: uint8 (b,H,W,3), labels: uint8 (b,H,W). seed: of what the model itself draws.
        """
        self.model.train()
        for part in self.frozen:
            part.eval()
        truth = torch.from_numpy(labels).to(self.device)
        totals = processes.summed(self.arch.sizes(self.model, truth))
        torch.manual_seed(seed)  # some bodies leave out layers at random

        def loss_of(rows: Sequence[int]) -> torch.Tensor:
            part = slice(rows[0], rows[-1] + 1)
            with self._autocast():
                return self.arch.loss(
                    self.model, _pixels(images[part], self.device), truth[part], totals
                )

        loss, self.most = backward_in_parts(
            self.model,
            range(len(images)),
            self.most,
            loss_of,
            lambda value: self.scaler.scale(value).backward(),
        )
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss

    def _autocast(self):
        return mixed_precision(self.params.precision, self.device.type)

    def best(self) -> nn.Module:
        """The model to score and to keep: the averaged one where there is one."""
        return self.model if self.average is None else self.average.module

    def _parts(self) -> dict:
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
            "average": self.average,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


def train(
    model: nn.Module,
    images: Sequence,
    labels: Sequence,
    params: SegmenterParams,
    progress: Path,
    seed: int,
) -> list[dict]:
    """Trains in place; returns the curve, one dict a step: step, loss, learning_rate, val_miou.

    images, labels: sequences of uint8 (H,W,3) RGB and uint8 (H,W), 255 ignored: arrays or
    `Encoded`. `val_miou` (percent, over the foreground labels of held-out pictures against their
    labels as given) is None between evaluations, and in all but the first process. `progress` is
    a folder for the checkpoint; it is the caller's to remove.
    """
    check_pictures(images, labels, params)
    learner = _learner(model, params)
    curve = _resume(progress, learner)
    kept, held = hold_out(len(images), seed)
    picture_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    rows = own_rows(params.batch_size, "segmenter.batch_size")
    main = processes.is_main()
    todo = range(len(curve) + 1, params.steps + 1)
    with tqdm(
        total=params.steps, initial=len(curve), desc="segmenter", unit="step", disable=not main
    ) as bar:
        made = batches(
            images, labels, kept, params, picture_seed, todo, rows, len(model.config.id2label) - 1
        )
        for step, *pair in made:
            rate = learner.schedule.get_last_lr()[-1]
            drawn = np.random.SeedSequence([seed, 3, step, rows[0]]).generate_state(1)[0]
            loss = learner.step(*pair, seed=int(drawn))
            row = {"step": step, "loss": loss, "learning_rate": rate, "val_miou": None}
            if main and len(held) and (step % EVALUATE_EVERY == 0 or step == params.steps):
                row["val_miou"] = _held_out_miou(learner.best(), images, labels, held)
                bar.set_postfix(loss=f"{loss:.2f}", miou=f"{row['val_miou']:.1f}")
            curve.append(row)
            if main and step % CHECKPOINT_EVERY == 0:
                save_state(progress / CHECKPOINT, learner.state_dict() | {"curve": curve})
            bar.update()
    if learner.average is not None:
        model.load_state_dict(learner.best().state_dict())
    model.eval()
    return curve


def _learner(model: nn.Module, params: SegmenterParams) -> Learner:
    """On its device, with the first process's weights. Raises ValueError for fp16 on a CPU."""
    device = own_device()
    if params.precision == "float16" and device.type != "cuda":
        raise ValueError(
            "segmenter.precision float16 needs a CUDA GPU and there is none here: "
            "expected bfloat16 or float32"
        )
    model.to(device, memory_format=torch.channels_last)
    same_weights(model)
    return Learner(model, params, device)


@torch.inference_mode()
def predict(model: nn.Module, images: np.ndarray) -> np.ndarray:
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

    def label(part: np.ndarray) -> np.ndarray:
        return scores(model, _pixels(part, device)).argmax(1).to(torch.uint8).cpu().numpy()

    maps = [found for _, found in Batches(most, ADVICE).run(images, label)]
    return np.concatenate([np.empty((0, *images.shape[1:3]), np.uint8), *maps])


def _optimizer(model: nn.Module, backbone: nn.Module, params: SegmenterParams):
    """AdamW whose rate falls to zero; the backbone, which came trained, learns slower."""
    trained = list(backbone.parameters())
    slow = {id(weight) for weight in trained}
    rest = [weight for weight in model.parameters() if id(weight) not in slow]
    rate = params.learning_rate
    groups = [{"params": trained, "lr": rate * params.backbone_lr_factor}, {"params": rest}]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=params.weight_decay, fused=True)
    decay = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: max(0.0, 1 - done / params.steps) ** params.poly_power
    )
    return optimizer, decay


def hold_out(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices to train on and indices kept for the curve."""
    order = np.random.default_rng([seed, 0]).permutation(n)
    held = min(HELD_OUT_MOST, int(n * HELD_OUT_SHARE))
    return order[held:], order[:held]


def _pixels(images: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 (B,H,W,3) -> float32 (B,3,H,W) in 0..1."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return pixels.permute(0, 3, 1, 2).float() / 255


def predict_each(model: nn.Module, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Label maps uint8 (H,W) of pictures uint8 (H,W,3); those of one size go together."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        places.setdefault(image.shape, []).append(place)
    found: dict[int, np.ndarray] = {}
    for group in places.values():
        found |= zip(group, predict(model, np.stack([images[i] for i in group])), strict=True)
    return [found[place] for place in range(len(images))]


def _held_out_miou(model: nn.Module, images: Sequence, labels: Sequence, held) -> float:
    classes = len(model.config.id2label) - 1
    found = predict_each(model, [images[place] for place in held])
    counts = confusions(found, [labels[place] for place in held], classes).sum(0)
    return float(100 * miou(counts, range(1, classes + 1)))


def _resume(progress: Path, learner: Learner) -> list[dict]:
    """Puts a checkpoint back and returns its curve, empty without a whole one."""
    state = load_state(progress / CHECKPOINT)
    if state is None:
        return []
    learner.load_state_dict(state)
    return state["curve"]
