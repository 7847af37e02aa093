"""Making pictures: plain diffusers, keeping what the later stages need.

Features are those of the last step itself, where they are asked for; later they are computed again
from the latent kept here. Not here: evidence, which is made of the finished picture.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ml.diffusion.attention import Recorder, WordAttention, recording, token_weights
from ml.diffusion.backbones.kinds import backbone_of, denoiser
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.features import denoiser_features, joined, tapped
from ml.diffusion.loading import latent_shape
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.schedulers import TIMESTEPS
from ml.diffusion.turns import callback_running, in_turn

StepCallback = Callable[[Any, int, int, dict[str, Any]], dict[str, Any]]
"""diffusers' `callback_on_step_end`: (its pipeline, step from 0, timestep, {"latents": ...}) ->
the tensors to go on with."""


@dataclass(frozen=True)
class Samples:
    images: np.ndarray  # uint8 (B,H,W,3) RGB
    latents: torch.Tensor  # float32 (B,C,h,w), CPU: what the denoiser was given in the last step
    timestep: int  # of that step, 0..999
    daam: list[torch.Tensor] | None  # float32 (n_i,h,w) a picture, CPU: summed attention, >= 0
    earlier: dict[int, tuple[int, torch.Tensor]]  # step, counted from the last (1) -> as above
    features: dict[int, torch.Tensor] | None = (
        None  # `denoiser_features` of `latents` at `timestep`
    )


@in_turn
def sample(
    pipe: Pipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    steps: int,
    guidance_scale: float,
    words: Sequence[Sequence[str]] | None = None,
    keep: Sequence[int] = (),
    features: bool = False,
    recorders: Sequence[Recorder] = (),
    callback: StepCallback | None = None,
) -> Samples:
    """One picture a prompt; a picture depends on its prompt and seed, not on its batch.

    words: for each prompt the words whose attention (DAAM: conditional half, mean over heads,
    sum over layers and steps) is recorded; the pictures are the same with and without. keep:
    steps, counted from the last (1) to the first (`steps`), whose inputs are kept in `earlier`;
    only the last of a scheduler of several passes a step (Heun, KDPM2, PNDM).
    features: whether the last step's are kept, on the pipeline's device and in its dtype, instead
    of a pass of `ml.diffusion.features.denoiser_features` afterwards, whose they are: but for the
    rounding of the timestep, which flow matching's schedules put between two whole numbers. A model
    that is told its guidance (FLUX dev) and drawn with another than its profile's makes that pass:
    the grounding module was trained with the profile's.
    recorders: observe the same cross-attentions as the words' own, as `add` of `Recorder`.
    callback: called by diffusers after each step; it may change the latents, but neither end the
    drawing early nor switch the guidance off, because the last step's input is kept, nor use the
    model for something else.
    Raises ValueError for lists of unequal length, no prompt, fewer than two steps, a guidance scale
    that the model does not take, a word that is not in its prompt, a step that there is not or
    that can't be told, a scheduler that can't draw, or a callback that does what it may not.
    """
    if lost := [step for step in keep if not 1 <= step <= steps]:
        raise ValueError(f"keep: expected steps of 1..{steps}, counted from the last, got {lost}")
    backbone = backbone_of(pipe)
    _check(prompts, seeds, words, steps)
    backbone.check_guidance(pipe, guidance_scale)
    backbone.process.check(pipe.scheduler, steps)
    with torch.inference_mode():
        recorder = None
        if words is not None and any(words):
            size = latent_shape(pipe)[1:]
            recorder = WordAttention(token_weights(pipe, prompts, words), size, backbone)
        observers = [*recorders, recorder] if recorder else recorders
        observed = recording(pipe, *observers) if observers else nullcontext()
        as_trained = backbone.told_guidance(pipe) in (None, guidance_scale)
        inputs = _Inputs(pipe, steps, {1, *keep}, features and as_trained)
        without = {}
        if backbone.halves == 2:
            without = encode_prompts(pipe, [""] * len(prompts)).sampling("negative_")
        with observed, inputs.observed(), _vae_left_as_it_was(pipe):
            pictures = pipe(
                **encode_prompts(pipe, prompts).sampling(),
                **without,
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                # On the CPU, so that a seed means the same noise on every device.
                generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
                output_type="np",
                callback_on_step_end=None
                if callback is None
                else _watched(callback, backbone.halves == 2),
            ).images
        maps = recorder.maps().float().cpu() if recorder else None
    # Cloned here: tensors of inference mode can't take part in a training.
    kept = {step: (timestep, latents.clone()) for step, (timestep, latents) in inputs.kept.items()}
    timestep, latents = kept[1]
    seen = joined(inputs.outputs, backbone.halves) if features and as_trained else None
    if features and not as_trained:
        seen = denoiser_features(pipe, latents, prompts, timestep)
    return Samples(
        images=(pictures * 255).round().astype(np.uint8),
        latents=latents,
        timestep=timestep,
        earlier={step: kept[step] for step in keep},
        daam=None if words is None else _per_picture(maps, words, latent_shape(pipe)[1:]),
        features=seen,
    )


@contextmanager
def _vae_left_as_it_was(pipe: Pipeline) -> Iterator[None]:
    """SDXL's pipeline decodes in float32 and, out of memory there, would leave the VAE so: the
    next try, of half the batch, would then meet two dtypes."""
    vae: nn.Module = pipe.vae  # torch's `to` has types, diffusers' wrapper of it has none
    dtype = pipe.vae.dtype
    try:
        yield
    finally:
        if pipe.vae.dtype != dtype:
            vae.to(dtype)


def _check(
    prompts: Sequence[str],
    seeds: Sequence[int],
    words: Sequence[Sequence[str]] | None,
    steps: int,
) -> None:
    lengths = [len(prompts), len(seeds), len(prompts if words is None else words)]
    if len(set(lengths)) > 1 or not prompts:
        raise ValueError(
            f"expected as many seeds and word lists as prompts, at least one; got "
            f"{lengths[0]} prompts, {lengths[1]} seeds, {lengths[2]} word lists"
        )
    if steps < 2:
        raise ValueError(f"expected at least 2 steps, got {steps}")


def _watched(callback: StepCallback, guided: bool) -> StepCallback:
    """The callback, refused when it ends the drawing early, switches the guidance off or returns
    no dictionary: the last step's input is kept, with both halves of the guided batch."""

    def call(pipe: Any, step: int, timestep: int, tensors: dict[str, Any]) -> dict[str, Any]:
        with callback_running(pipe):
            changed = callback(pipe, step, timestep, tensors)
        if pipe.interrupt or (guided and not pipe.do_classifier_free_guidance):
            raise ValueError(
                "callback_on_step_end: expected one that neither interrupts the drawing nor "
                "switches the guidance off (masks are made of the last step under guidance)"
            )
        if not isinstance(changed, dict):
            raise ValueError(
                "callback_on_step_end: expected the dictionary of tensors to go on with, such as "
                f"the one that it was given, got {type(changed).__name__}"
            )
        return changed

    return call


def _per_picture(
    maps: torch.Tensor | None, words: Sequence[Sequence[str]], size: tuple[int, int]
) -> list[torch.Tensor]:
    if maps is None:
        return [torch.zeros(0, *size) for _ in words]
    return [maps[i, : len(own)].clone() for i, own in enumerate(words)]


class _Inputs:
    """Observes the denoiser's inputs: keeps the latents of some steps, counted from the last (1),
    and of the last one the taps' outputs, if they are wanted.

    They are as the scheduler scales them (some work in units of the noise), so that one pass
    on one of them, with its timestep, is that step whatever the scheduler.
    """

    def __init__(self, pipe: Pipeline, steps: int, wanted: set[int], features: bool) -> None:
        self.pipe, self.steps, self.wanted, self.features = pipe, steps, wanted, features
        self.calls = 0
        self.backbone = backbone_of(pipe)
        self.kept: dict[int, tuple[int, torch.Tensor]] = {}  # float32 (B,C,h,w), CPU
        self.outputs: dict[int, torch.Tensor] = {}  # of `tapped`
        self.open = ExitStack()

    @contextmanager
    def observed(self) -> Iterator[None]:
        with self.open:
            look = denoiser(self.pipe).register_forward_pre_hook(self._look, with_kwargs=True)
            self.open.callback(look.remove)
            yield

    def _look(
        self, network: nn.Module, inputs: tuple[torch.Tensor, ...], named: dict[str, Any]
    ) -> None:
        passes = len(self.pipe.scheduler.timesteps)
        if passes != self.steps and self.wanted != {1}:
            raise ValueError(
                f"keep: expected 1, the last step, alone with "
                f"{type(self.pipe.scheduler).__name__}, which makes {passes} passes in "
                f"{self.steps} steps, got {sorted(self.wanted - {1})}; choose a scheduler of one "
                "pass a step, such as DDIMScheduler"
            )
        step = passes - self.calls
        self.calls += 1
        if step in self.wanted:  # both halves of a guided batch are given the same latents
            latents, timestep = self.backbone.seen(self.pipe, inputs, named)
            own = latents[: len(latents) // self.backbone.halves].float().cpu()
            self.kept[step] = (min(round(timestep), TIMESTEPS - 1), own)
        if self.features and step == 1:  # not before: outputs of another step would only fill
            self.outputs = self.open.enter_context(tapped(self.pipe))  # the memory
