"""How latents are mixed with noise: DDPM's variance-preserving process, and rectified flow.

Stable Diffusion 1, 2 and XL were trained with the first (arXiv 2006.11239), Stable Diffusion 3 and
FLUX with the second (arXiv 2403.03206, section 2). Not here: the schedulers that may draw
(`ml.diffusion.schedulers`).
"""

from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from ml.diffusion import flow_schedulers, schedulers
from ml.diffusion.backbones.protocol import Predict

STEPS = 10
"""Of an inversion, from the clean latent to the timestep, or as many as it has."""


class Ddpm:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e, a_t the share of the signal's power."""

    predictions: tuple[str, ...] = schedulers.PREDICTIONS

    def shares(self, scheduler: Any, timestep: int) -> tuple[float, float]:
        share = float(signal_shares(scheduler)[timestep])
        return share**0.5, (1 - share) ** 0.5

    def to_velocity(self, scheduler: Any, timestep: int) -> float:
        """v = sqrt(a) e - sqrt(1-a) x0 and x_t = sqrt(a) x0 + sqrt(1-a) e with x_t fixed, so that
        dv = de / sqrt(a) = -dx0 / sqrt(1-a)."""
        kind, share = scheduler.config.prediction_type, float(signal_shares(scheduler)[timestep])
        if kind == "v_prediction":
            return 1.0
        if kind == "epsilon":
            return float(share**-0.5)
        if kind == "sample":
            return float((1 - share) ** -0.5)
        raise ValueError(
            f"prediction_type: expected one of {sorted(self.predictions)}, got {kind!r}"
        )

    def target(self, scheduler: Any, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        signal, rest = self.shares(scheduler, timestep)
        targets: dict[str, Tensor] = {
            "epsilon": noise,
            "sample": clean,
            "v_prediction": signal * noise - rest * clean,
        }
        return targets[scheduler.config.prediction_type]

    def check_name(self, name: str) -> None:
        schedulers.check_own(name)

    def swapped(self, scheduler: Any, name: str) -> Any:
        return schedulers.swapped(scheduler, name)

    def check(self, scheduler: Any, steps: int) -> None:
        schedulers.check_scheduler(scheduler, steps)

    def inverted(self, scheduler: Any, latents: Tensor, timestep: int, predict: Predict) -> Tensor:
        """DDIM's update (arXiv 2010.02502, equation 12) run towards the noise; the update itself
        is diffusers' DDIMInverseScheduler."""
        # It takes a number of steps: the largest stride that it computes back from one, and with
        # which that many steps reach the timestep (11 of 90 end before 990).
        stride = next(
            s
            for s in range(max(1, timestep // STEPS), 0, -1)
            if 1000 // (1000 // s) == s and timestep // s < 1000 // s
        )
        inverse = schedulers.unclipped(
            DDIMInverseScheduler,
            scheduler.config,
            timestep_spacing="leading",
            steps_offset=timestep % stride,
        )
        inverse.set_timesteps(1000 // stride)
        for time in inverse.timesteps[inverse.timesteps <= timestep].tolist():
            latents = inverse.step(predict(latents, time), time, latents).prev_sample
        return latents


class Flow:
    """x_t = (1 - s) x_0 + s e with s = t / 1000, and the denoiser predicts the velocity e - x_0.

    s is the noise's share whatever shift a scheduler walks it with.
    """

    predictions: tuple[str, ...] = ()

    def shares(self, scheduler: Any, timestep: int) -> tuple[float, float]:
        share = timestep / schedulers.TIMESTEPS
        return 1 - share, share

    def to_velocity(self, scheduler: Any, timestep: int) -> float:
        return 1.0

    def target(self, scheduler: Any, clean: Tensor, noise: Tensor, timestep: int) -> Tensor:
        return noise - clean

    def check_name(self, name: str) -> None:
        flow_schedulers.check_own(name)

    def swapped(self, scheduler: Any, name: str) -> Any:
        return flow_schedulers.swapped(scheduler, name)

    def check(self, scheduler: Any, steps: int) -> None:
        flow_schedulers.check_scheduler(scheduler, steps)

    def inverted(self, scheduler: Any, latents: Tensor, timestep: int, predict: Predict) -> Tensor:
        """Euler's steps of equal length along the velocity, from the picture towards the noise."""
        times = torch.linspace(0, timestep, min(STEPS, timestep) + 1).round().int().tolist()
        for time, following in zip(times[:-1], times[1:], strict=True):
            share = (following - time) / schedulers.TIMESTEPS
            latents = latents + share * predict(latents, time)
        return latents


def signal_shares(scheduler: Any) -> Tensor:
    """alpha_bar by timestep, float32 (1000,), CPU: DDPM's, whatever scheduler is set."""
    shares: Tensor = DDPMScheduler.from_config(scheduler.config).alphas_cumprod
    return shares
