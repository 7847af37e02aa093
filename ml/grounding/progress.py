"""Where a training of a grounding module stands: its checkpoint, from which it goes on, and its
curve.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from ml.grounding.module import GroundingModule
from ml.store.files import atomic
from ml.store.training_state import load_state, save_state


class CurveRow(TypedDict):
    step: int
    loss: float  # mean since the row before
    val_miou: float  # percent


@dataclass
class Progress:
    """Where a training stands, beside the weights."""

    step: int = 0
    best_step: int = 0
    best_miou: float = -1.0  # percent
    without_gain: int = 0  # evaluations since the best
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    curve: list[CurveRow] = field(default_factory=list)


def save_progress(
    file: Path, module: GroundingModule, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Writes a checkpoint for `load_progress`."""
    save_state(
        file,
        {
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": vars(progress),
        },
    )


def load_progress(
    file: Path, module: GroundingModule, optimizer: torch.optim.Optimizer
) -> Progress | None:
    """Restores a checkpoint; None where there is no whole one."""
    saved = load_state(file)
    if saved is None:
        return None
    module.load_state_dict(saved["module"])
    optimizer.load_state_dict(saved["optimizer"])
    return Progress(**saved["progress"])


def write_curve(file: Path, curve: Sequence[CurveRow]) -> None:
    """curve.csv: step, loss (mean since the row before), val_miou (percent)."""
    with atomic(file) as temporary, temporary.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["step", "loss", "val_miou"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(curve)
