"""Latents of given pictures: encoded by the VAE, and noised to a timestep.

Not here: the latent of a picture while it is drawn (`ml.diffusion.sampling`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)
from torch import nn

from ml.diffusion.backbones.kinds import backbone_of
from ml.diffusion.pipeline import Pipeline, device_of
from ml.diffusion.turns import in_turn


@in_turn
@torch.no_grad()
def encode_images(pipe: Pipeline, images: np.ndarray) -> torch.Tensor:
    """Clean latents float32 (B,C,h,w), scaled, of pictures uint8 (B,H,W,3); deterministic."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise ValueError(f"expected uint8 (B,H,W,3), got {images.dtype} {images.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    pixels = pixels.to(device_of(pipe), torch.float32) / 127.5 - 1
    with _vae_without_overflow(pipe) as vae:
        latents: torch.Tensor = vae.encode(pixels.to(vae.dtype)).latent_dist.mean
    scaling: float = pipe.vae.config["scaling_factor"]
    shift: float = pipe.vae.config["shift_factor"] or 0.0
    return (latents.float() - shift) * scaling


def vae_is_upcast(pipe: Pipeline) -> bool:
    """Whether diffusers runs the VAE in float32 for its passes: SDXL's in float16, whose
    configuration says that it overflows."""
    return (
        isinstance(pipe, StableDiffusionXLPipeline)
        and pipe.vae.dtype == torch.float16
        and bool(pipe.vae.config["force_upcast"])
    )


@contextmanager
def _vae_without_overflow(pipe: Pipeline) -> Iterator[AutoencoderKL]:
    """The VAE, in float32 where diffusers runs it so (`vae_is_upcast`)."""
    vae = pipe.vae
    if not vae_is_upcast(pipe):
        yield vae
        return
    module: nn.Module = vae  # torch's `to` has types, diffusers' wrapper of it has none
    try:
        module.to(torch.float32)
        yield vae
    finally:
        module.to(torch.float16)


def add_noise(
    pipe: Pipeline, latents: torch.Tensor, timestep: int, seeds: Sequence[int]
) -> torch.Tensor:
    """Clean latents (B,C,h,w) noised to a timestep of 0..999; same shape, device and dtype.

    The noise of a sample comes from its seed and the timestep: other than the noise that a
    picture of that seed was made from, and another at every timestep.
    """
    if len(seeds) != len(latents):
        raise ValueError(f"expected one seed a latent, got {len(seeds)} for {len(latents)}")
    signal, rest = backbone_of(pipe).process.shares(pipe.scheduler, timestep)
    noise = torch.stack(
        [torch.randn(latents.shape[1:], generator=_generator(seed, timestep)) for seed in seeds]
    ).to(latents)
    noisy: torch.Tensor = signal * latents + rest * noise
    return noisy


def _generator(seed: int, timestep: int) -> torch.Generator:
    mixed = np.random.SeedSequence([int(seed), timestep]).generate_state(1)[0]
    return torch.Generator().manual_seed(int(mixed))
