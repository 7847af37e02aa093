"""Less GPU memory for large models: weights that wait in main memory, and weights of 8 bits.

Offloading is diffusers' and changes no number; quantising is torchao's and does. Not here: batches
that do not fit (`ml.compute.batching`), tiles of the VAE (`ml.diffusion.loading`).
"""

import importlib.util
from typing import Any, cast

import torch
from torch import nn

from ml.diffusion.backbones.kinds import denoiser, kind_of_pipe
from ml.diffusion.latents import vae_is_upcast
from ml.diffusion.pipeline import Pipeline

QUANTISE = "quantise"
"""Attribute of a pipeline: how its weights were quantised; missing where they were not."""


def offload(pipe: Pipeline, how: str, device: torch.device) -> Pipeline:
    """The pipeline with its weights in main memory until they are used on the device.

    how: "model" brings one network after the other, "sequential" one layer after the other, which
    is much slower and needs the least. Raises ValueError for the layers of quantised weights, and
    where the VAE would change its dtype in between: its layers come as they were loaded.
    """
    own = cast(Any, pipe)
    if device.type == "cuda" and device.index is None:  # accelerate would take the first GPU
        device = torch.device("cuda", torch.cuda.current_device())
    if how == "sequential" and hasattr(pipe, QUANTISE):
        raise ValueError(
            "diffusion.offload: sequential can't bring weights of 8 bits layer by layer: set it to "
            "model, or diffusion.quantise to null"
        )
    if how == "model":
        own.enable_model_cpu_offload(device=device)
        return pipe
    if vae_is_upcast(pipe):
        raise ValueError(
            "diffusion.offload: sequential brings layers in the dtype that they were loaded in, "
            "and this VAE overflows float16: set diffusion.dtype to bfloat16, or offload to model"
        )
    own.enable_sequential_cpu_offload(device=device)
    return pipe


def make_room(pipe: Pipeline) -> None:
    """Brings every network of a pipeline that waits as "model" back to main memory.

    To be called before the text encoders run: accelerate sends away the network that comes before
    in the order of a drawing, and nothing comes before the first. A denoiser that was called
    outside a drawing would stay beside T5.
    """
    for waiting in getattr(pipe, "_all_hooks", ()):
        if not is_away(waiting.model):
            waiting.offload()


def is_away(network: nn.Module) -> bool:
    """Whether a network is in main memory."""
    return next(network.parameters()).device.type == "cpu"


def quantise(pipe: Pipeline, how: str) -> None:
    """Linear layers of the denoiser and of T5 to weights of 8 bits ("int8", a scale a channel), in
    place; what they compute stays in the pipeline's dtype. Half the memory of bfloat16, other
    pixels. Raises ValueError where torchao is not installed."""
    if importlib.util.find_spec("torchao") is None:
        raise ValueError(
            f"diffusion.quantise: {how} needs torchao: pip install '.[quantise]', or set it to null"
        )
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    for part in quantised_parts(pipe):
        quantize_(part, Int8WeightOnlyConfig())
    setattr(pipe, QUANTISE, how)


def quantised_parts(pipe: Pipeline) -> list[nn.Module]:
    """The large ones: the denoiser, and T5 where there is one."""
    named = [getattr(pipe, part) for part in kind_of_pipe(pipe).text]
    return [
        cast(nn.Module, denoiser(pipe)),
        *(part for part in named if part is not None and part.config.model_type == "t5"),
    ]


def refuse_to_copy(pipe: Pipeline) -> None:
    """Raises ValueError for weights that are not as they were loaded, or not here: a copy of them
    would be another model, or none."""
    away = any(p.is_meta for part in pipe_networks(pipe) for p in part.parameters())
    if away or hasattr(pipe, QUANTISE):
        raise ValueError(
            "the weights of the diffusion model are quantised or offloaded layer by layer, and no "
            "copy of them is written: name the model instead, "
            "save_pretrained(folder, diffusion=its id or folder)"
        )


def pipe_networks(pipe: Pipeline) -> list[nn.Module]:
    """All parts with weights that the pipeline has."""
    parts = [getattr(pipe, part) for part in kind_of_pipe(pipe).networks]
    return [part for part in parts if part is not None]
