"""Loading the text-to-image model: micro and full size differ by a string.

Not here: where its files come from (`checkpoint.py`), and what is done with the loaded pipeline.
"""

from pathlib import Path

import diffusers
import torch
from diffusers import SchedulerMixin

from ml.diffusion.checkpoint import Pipeline, find_checkpoint, kind_of
from ml.params import DiffusionParams
from ml.stages import Workspace

# At 512x512 (latents of 64) decoding a batch at once takes gigabytes and no less time than one
# picture after the other; at the micro size (latents of 16) the batch is faster.
SLICED_FROM = 64


def load_pipeline(diffusion: DiffusionParams, workspace: Workspace) -> Pipeline:
    """The pipeline of a folder or hub id, ready for use (`prepare_pipeline`).

    Raises ValueError, saying what to do, for a missing or damaged model, an unknown scheduler or
    a device that is not there.
    """
    find_device(diffusion.device)  # before anything is downloaded
    folder = find_checkpoint(workspace.model(diffusion.model), diffusion.revision,
                             diffusion.variant)
    pipe = read_pipeline(folder, diffusion.variant, getattr(torch, diffusion.dtype))
    return prepare_pipeline(pipe, diffusion)


def prepare_pipeline(pipe: Pipeline, diffusion: DiffusionParams) -> Pipeline:
    """The pipeline frozen, on its device, its scheduler set by name, memory saved as asked for.

    Parameters are in eval mode without gradients, the U-Net is channels_last (30 % faster on a
    CPU), the safety checker and the progress bar are off.
    """
    set_scheduler(pipe, diffusion.scheduler)
    for part in (pipe.unet, pipe.vae, *text_encoders(pipe)):
        part.eval().requires_grad_(False)
    pipe.unet.to(memory_format=torch.channels_last)
    if latent_shape(pipe)[-1] >= SLICED_FROM:
        pipe.vae.enable_slicing()
    if diffusion.vae_tiling:
        tile_vae(pipe)
    if diffusion.attention_slicing:
        pipe.enable_attention_slicing()
    return pipe.to(find_device(diffusion.device))


def read_pipeline(folder: Path, variant: str | None, dtype: torch.dtype) -> Pipeline:
    """The pipeline in a folder, of the class that its model_index.json names, on the CPU."""
    kind, told = kind_of(folder)
    pipe = kind.from_pretrained(str(folder), variant=variant, dtype=dtype, use_safetensors=True,
                                **told)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tile_vae(pipe: Pipeline) -> None:
    """Codes pictures in overlapping tiles of half their side, for a quarter of the memory.

    The pixels differ a little from the whole picture's: the VAE normalises over what it sees. By
    itself it tiles only what is larger than the pictures it was trained on.
    """
    pipe.vae.enable_tiling()
    pipe.vae.tile_sample_min_size = picture_size(pipe)[0] // 2
    pipe.vae.tile_latent_min_size = latent_shape(pipe)[-1] // 2


def text_encoders(pipe: Pipeline) -> list:
    """SDXL's two, every other model's one, in the order of the query's channels."""
    return [encoder for encoder in (pipe.text_encoder, getattr(pipe, "text_encoder_2", None))
            if encoder is not None]


def set_scheduler(pipe: Pipeline, name: str) -> None:
    """Swaps the pipeline's scheduler for another class of diffusers, keeping its noise schedule.

    Raises ValueError, listing the names that fit, for a name that is no scheduler.
    """
    fitting = sorted(kind.__name__ for kind in pipe.scheduler.compatibles)
    kind = getattr(diffusers, name, None)
    if not isinstance(kind, type) or not issubclass(kind, SchedulerMixin):
        raise ValueError(f"diffusion.scheduler: expected one of {fitting}, got {name!r}; "
                         "change it in the profile")
    pipe.scheduler = kind.from_config(pipe.scheduler.config)


def find_device(name: str) -> torch.device:
    """The device of a setting: `auto` is CUDA when there is one, else the CPU.

    Raises ValueError for a name torch does not know or a device this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"diffusion.device {name!r} is not available here (CUDA devices: "
            f"{torch.cuda.device_count()}); set it to auto, cpu or cuda, or run where there is a "
            f"GPU with its driver: {error}"
        ) from error
    return device


def latent_shape(pipe: Pipeline) -> tuple[int, int, int]:
    """(C, h, w) of one latent of the pipeline's own picture size."""
    side = pipe.unet.config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    return pipe.unet.config.in_channels, height, width


def picture_size(pipe: Pipeline) -> tuple[int, int]:
    """(H, W) of the pipeline's pictures, pixels."""
    _, height, width = latent_shape(pipe)
    return height * pipe.vae_scale_factor, width * pipe.vae_scale_factor
