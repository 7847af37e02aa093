"""DDIM inversion: the latent from which deterministic sampling would lead to a given picture.

The paper's other way to features of real pictures (arXiv 2301.05221, appendix): instead of adding
noise, DDIM's update (arXiv 2010.02502, equation 12) is run towards the noise, with the prompt and
without guidance. The update itself is diffusers' DDIMInverseScheduler.
"""

from collections.abc import Sequence

import torch
from diffusers.schedulers.scheduling_ddim_inverse import DDIMInverseScheduler

from ml.diffusion.encoding import encode_prompts
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.schedulers import unclipped

STEPS = 10
"""From the clean latent to the timestep, or as many as it has."""


@torch.no_grad()
def invert(
    pipe: Pipeline, latents: torch.Tensor, prompts: Sequence[str], timestep: int
) -> torch.Tensor:
    """Clean latents (B,C,h,w) brought to a timestep of 1..999; same shape, on the pipeline's
    device, float32. Deterministic. Raises ValueError for lists of unequal length, or timestep 0.
    """
    if len(prompts) != len(latents):
        raise ValueError(f"expected one prompt a latent, got {len(prompts)} for {len(latents)}")
    if not 1 <= timestep <= 999:
        raise ValueError(f"timestep: expected 1..999, got {timestep}")
    # The scheduler takes a number of steps: the largest stride that it computes back from one.
    stride = next(s for s in range(max(1, timestep // STEPS), 0, -1) if 1000 // (1000 // s) == s)
    scheduler = unclipped(
        DDIMInverseScheduler,
        pipe.scheduler.config,
        timestep_spacing="leading",
        steps_offset=timestep % stride,
    )
    count = 1000 // stride
    scheduler.set_timesteps(count)
    text = encode_prompts(pipe, prompts).kwargs
    latents = latents.to(pipe.device, torch.float32)
    for time in scheduler.timesteps[scheduler.timesteps <= timestep].tolist():
        (predicted,) = pipe.unet(latents.to(pipe.unet.dtype), time, return_dict=False, **text)
        latents = scheduler.step(predicted.float(), time, latents).prev_sample
    return latents
