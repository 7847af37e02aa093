"""What is used of diffusers' text-to-image pipelines, as types.

diffusers sets the parts of a pipeline by name when it loads one, so that its classes do not declare
them. Not here: which pipelines may be loaded (`ml.diffusion.checkpoint`).
"""

from pathlib import Path
from typing import Any, Protocol, Self, cast

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from transformers import CLIPTokenizer


class Scheduler(Protocol):
    """A scheduler of diffusers. Fields of `config` are attributes known at run time alone."""

    config: Any
    timesteps: torch.Tensor
    init_noise_sigma: Any  # float or 0-d tensor

    @classmethod
    def from_config(cls, config: Any, /, **changes: Any) -> Any: ...

    def set_timesteps(self, num_inference_steps: int, /) -> None: ...

    def scale_model_input(self, sample: torch.Tensor, timestep: Any, /) -> torch.Tensor: ...

    def step(
        self, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor, /, **options: Any
    ) -> Any: ...


class Drawn(Protocol):
    """What a call of a pipeline returns with `output_type="np"`."""

    images: np.ndarray  # float32 (B,H,W,3) in 0..1


def device_of(pipe: "Pipeline") -> torch.device:
    """Where its passes run: not where its weights are while they wait (`ml.diffusion.saving`)."""
    device: torch.device = cast(Any, pipe)._execution_device
    return device


class Pipeline(Protocol):
    """One of `ml.diffusion.backbones.kinds`. Its denoiser: `denoiser` there; its text encoders and
    tokenizers: `ml.diffusion.loading.text_encoders`, `ml.diffusion.tokens.tokenizers`."""

    vae: AutoencoderKL
    tokenizer: CLIPTokenizer
    scheduler: Scheduler
    config: Any  # fields of model_index.json
    vae_scale_factor: int

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def to(self, device: torch.device, /) -> Self: ...

    def encode_prompt(self, *texts: Any, **options: Any) -> tuple[torch.Tensor, ...]: ...

    def save_pretrained(
        self, save_directory: str | Path, /, *, safe_serialization: bool = True
    ) -> None: ...

    def enable_attention_slicing(self) -> None: ...

    def set_progress_bar_config(self, **options: bool) -> None: ...

    def __call__(self, **arguments: Any) -> Drawn: ...
