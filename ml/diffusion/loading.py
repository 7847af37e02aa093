"""Loading the text-to-image model: micro and full size differ by a string.

Not here: sampling and everything else that is done with the loaded pipeline.
"""

import diffusers
import torch
from diffusers import SchedulerMixin, StableDiffusionPipeline

from ml.params import DiffusionParams
from ml.stages import Workspace

# At 512x512 (latents of 64) decoding a batch at once takes gigabytes and no less time than one
# picture after the other; at the micro size (latents of 16) the batch is faster.
SLICED_FROM = 64


def load_pipeline(diffusion: DiffusionParams, workspace: Workspace) -> StableDiffusionPipeline:
    """The pipeline of a folder or hub id, frozen, on its device, its scheduler set by name.

    Parameters are in eval mode without gradients, the U-Net is channels_last (30 % faster on a
    CPU), the safety checker and the progress bar are off. Raises ValueError, saying what to do,
    for a missing model, an unknown scheduler or a device that is not there.
    """
    device = find_device(diffusion.device)
    name = workspace.model(diffusion.model)
    try:
        pipe = StableDiffusionPipeline.from_pretrained(
            name,
            revision=diffusion.revision,
            dtype=getattr(torch, diffusion.dtype),
            use_safetensors=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError) as error:
        revision = f" at revision {diffusion.revision!r}" if diffusion.revision else ""
        raise ValueError(
            f"diffusion.model {diffusion.model!r}{revision}: expected a folder below "
            f"{workspace.root} written by StableDiffusionPipeline.save_pretrained with "
            f"safetensors, or a hub id that can be reached from here; got {error}. Check the "
            "folder, the network, or diffusion.model in the profile"
        ) from error
    set_scheduler(pipe, diffusion.scheduler)
    for part in (pipe.unet, pipe.vae, pipe.text_encoder):
        part.eval().requires_grad_(False)
    pipe.unet.to(memory_format=torch.channels_last)
    if latent_shape(pipe)[-1] >= SLICED_FROM:
        pipe.vae.enable_slicing()
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def set_scheduler(pipe: StableDiffusionPipeline, name: str) -> None:
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
            f"{torch.cuda.device_count()}); use auto, cpu or cuda: {error}"
        ) from error
    return device


def latent_shape(pipe: StableDiffusionPipeline) -> tuple[int, int, int]:
    """(C, h, w) of one latent of the pipeline's own picture size."""
    side = pipe.unet.config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    return pipe.unet.config.in_channels, height, width
