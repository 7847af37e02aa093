"""How long a training lasts, and the learning rate and averaging over that time."""

import math
from dataclasses import dataclass

FINAL_LR_SHARE = 0.01


@dataclass(frozen=True)
class Budget:
    """How long to train: minutes of wall clock (all starts together), or steps. Exactly one.

    Raises ValueError for both or neither.
    """

    minutes: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if (self.minutes is None) == (self.steps is None):
            raise ValueError(
                f"minutes is {self.minutes} and steps is {self.steps}: give one of the two"
            )

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is used up, 0..1."""
        if self.steps is not None:
            return min(1.0, step / self.steps)
        assert self.minutes is not None
        return min(1.0, seconds / (60 * self.minutes))


@dataclass(frozen=True)
class Schedule:
    """The settings of the optimisers and of the moving average of the weights."""

    peak_lr: float
    warmup: int  # steps
    ema_decay: float
    weight_decay: float
    fused: bool | None = None  # AdamW's implementation; None: torch's own choice
    muon: str = ""  # modules of this name have their matrices trained by Muon


def learning_rate(peak: float, step: int, warmup: int, progress: float) -> float:
    """Linear warmup over `warmup` steps, then half a cosine in progress (0..1) to 1 % of peak.

    The rate follows the share of the budget: a run extended from 40 to 60 minutes goes on at the
    rate that a 60-minute run has after 40 minutes, which re-opens a schedule that had closed.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * progress))
    return peak * min(1.0, (step + 1) / warmup) * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * cosine)
