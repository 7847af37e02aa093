"""A segmenter while it learns: model, optimizer, schedule and averaged weights; step by step."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedModel

from ml.compute import processes
from ml.compute.gradients import backward_in_parts
from ml.compute.precision import mixed_precision
from ml.compute.weights import check_loss
from ml.segmenters import architecture
from ml.segmenters.prediction import to_pixels
from ml.settings.sections import SegmenterParams

MAX_GRADIENT = 1.0


class Learner:
    """A model with all that changes while it learns; `state_dict` is a checkpoint's content."""

    def __init__(
        self, model: PreTrainedModel, params: SegmenterParams, device: torch.device
    ) -> None:
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
                value: torch.Tensor = self.arch.loss(
                    self.model, to_pixels(images[part], self.device), truth[part], totals
                )
                return value

        loss, self.most = backward_in_parts(
            self.model,
            range(len(images)),
            self.most,
            loss_of,
            self._backward,
        )
        value = loss.item()
        check_loss(value, type(self.model).__name__)
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRADIENT)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)
        return value

    def _backward(self, loss: torch.Tensor) -> None:
        self.scaler.scale(loss).backward()

    def _autocast(self) -> torch.autocast:
        return mixed_precision(self.params.precision, self.device.type)

    def best(self) -> PreTrainedModel:
        """The model to score and to keep: the averaged one where there is one."""
        return self.model if self.average is None else cast(PreTrainedModel, self.average.module)

    def _parts(self) -> dict[str, Any]:
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "scaler": self.scaler,
            "average": self.average,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            part.load_state_dict(state[name])


def _optimizer(
    model: nn.Module, backbone: nn.Module, params: SegmenterParams
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW whose rate rises, then falls to zero; the pretrained backbone learns more slowly."""
    trained = list(backbone.parameters())
    slow = {id(weight) for weight in trained}
    rest = [weight for weight in model.parameters() if id(weight) not in slow]
    rate = params.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": trained, "lr": rate * params.backbone_lr_factor},
        {"params": rest},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, weight_decay=params.weight_decay, fused=True)

    def factor(done: int) -> float:
        rise = min(1.0, (done + 1) / params.warm_up) if params.warm_up else 1.0
        return float(rise * max(0.0, 1 - done / params.steps) ** params.poly_power)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
