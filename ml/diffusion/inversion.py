"""Inversion: the latent from which deterministic sampling would lead to a given picture.

The paper's other way to features of real pictures (arXiv 2301.05221, appendix): instead of adding
noise, the sampler's update is run towards the noise, with the prompt and without guidance; a
distilled model is told its profile's. The update is the process's own
(`ml.diffusion.backbones.noising`).
"""

from collections.abc import Sequence

import torch

from ml.diffusion.backbones.kinds import backbone_of, denoiser
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.pipeline import Pipeline, device_of
from ml.diffusion.turns import in_turn


@in_turn
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
    backbone, network = backbone_of(pipe), denoiser(pipe)
    text = encode_prompts(pipe, prompts)

    def predict(given: torch.Tensor, time: int) -> torch.Tensor:
        return backbone.predict(pipe, given.to(network.dtype), time, text).float()

    clean = latents.to(device_of(pipe), torch.float32)
    return backbone.process.inverted(pipe.scheduler, clean, timestep, predict)
