"""Making pictures: plain diffusers, keeping what the later stages need.

Not here: features and evidence, which are recomputed from the latent kept here.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from ml.diffusion.attention import WordAttention, recording, token_weights
from ml.diffusion.checkpoint import Pipeline
from ml.diffusion.loading import latent_shape
from ml.diffusion.tokens import encode_prompts


@dataclass(frozen=True)
class Samples:
    images: np.ndarray  # uint8 (B,H,W,3) RGB
    latents: torch.Tensor  # float32 (B,C,h,w), CPU: what the U-Net was given in the last step
    timestep: int  # of that step, 0..999
    daam: list[torch.Tensor] | None  # float32 (n_i,h,w) a picture, CPU: summed attention, >= 0


def sample(
    pipe: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance_scale: float,
    words: Sequence[Sequence[str]] | None = None,
) -> Samples:
    """One picture a prompt; a picture depends on its prompt and seed, not on its batch.

    words: for each prompt the words whose attention (DAAM: conditional half, mean over heads,
    sum over layers and steps) is recorded; the pictures are the same with and without. Raises
    ValueError for lists of unequal length, no prompt, fewer than two steps, no guidance, or a
    word that is not in its prompt.
    """
    _check(prompts, seeds, words, steps, guidance_scale)
    with torch.inference_mode():
        recorder, looking = None, nullcontext()
        if words is not None and any(words):
            size = latent_shape(pipe)[1:]
            recorder = WordAttention(token_weights(pipe, prompts, words), size)
            looking = recording(pipe.unet, recorder)
        keep = _LastInput(pipe)
        with looking, _vae_left_as_it_was(pipe):
            pictures = pipe(
                **encode_prompts(pipe, prompts).sampling(),
                **encode_prompts(pipe, [""] * len(prompts)).sampling("negative_"),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                # On the CPU, so that a seed means the same noise on every device.
                generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
                callback_on_step_end=keep,
                output_type="np",
            ).images
        maps = recorder.maps().float().cpu() if recorder else None
    return Samples(
        images=(pictures * 255).round().astype(np.uint8),
        # Cloned: tensors of inference mode can't take part in a training.
        latents=keep.latents.float().cpu().clone(),
        timestep=keep.timestep,
        daam=None if words is None else _per_picture(maps, words, latent_shape(pipe)[1:]),
    )


@contextmanager
def _vae_left_as_it_was(pipe: Pipeline) -> Iterator[None]:
    """SDXL's pipeline decodes in float32 and, out of memory there, would leave the VAE so: the
    next try, of half the batch, would then meet two dtypes."""
    dtype = pipe.vae.dtype
    try:
        yield
    finally:
        if pipe.vae.dtype != dtype:
            pipe.vae.to(dtype)


def _check(prompts, seeds, words, steps, guidance_scale) -> None:
    lengths = [len(prompts), len(seeds), len(prompts if words is None else words)]
    if len(set(lengths)) > 1 or not prompts:
        raise ValueError(f"expected as many seeds and word lists as prompts, at least one; got "
                         f"{lengths[0]} prompts, {lengths[1]} seeds, {lengths[2]} word lists")
    if steps < 2 or guidance_scale <= 1:
        raise ValueError(f"expected at least 2 steps and a guidance scale above 1 (both halves "
                         f"of the batch are needed), got {steps} and {guidance_scale}")


def _per_picture(maps, words, size) -> list[torch.Tensor]:
    if maps is None:
        return [torch.zeros(0, *size) for _ in words]
    return [maps[i, : len(own)].clone() for i, own in enumerate(words)]


class _LastInput:
    """The callback after each step: keeps what the U-Net will be given in the last one.

    That is the latent as the scheduler scales it (some work in units of the noise), so that one
    U-Net pass on it, with the kept timestep, is the last step whatever the scheduler.
    """

    def __init__(self, pipe: Pipeline):
        self.scheduler = pipe.scheduler
        self.latents: torch.Tensor | None = None
        self.timestep = -1

    def __call__(self, pipe, step: int, timestep, tensors: dict) -> dict:
        times = self.scheduler.timesteps
        if step == len(times) - 2:
            self.latents = self.scheduler.scale_model_input(tensors["latents"], times[-1]).clone()
            self.timestep = round(float(times[-1]))
        return {}
