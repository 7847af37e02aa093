"""Loading the text-to-image model: micro and full size differ by a string.

Not here: where its files come from (`checkpoint.py`), and what is done with the loaded pipeline.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from ml.compute.devices import find_device
from ml.compute.precision import usable_precision
from ml.compute.weights import check_finite, load_whole
from ml.diffusion.backbones.kinds import backbone_of, denoiser, kind_of_pipe, tokenizer_of
from ml.diffusion.checkpoint import find_checkpoint, kind_of
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.saving import offload, quantise
from ml.diffusion.schedulers import check_name, unclipped
from ml.diffusion.weight_files import parts_of, weight_files
from ml.settings.sections import DiffusionParams
from ml.store.reading import configured, read_object
from ml.words.text_limit import reads

# At 512x512 (latents of 64) decoding a batch at once takes gigabytes and no less time than one
# picture after the other; at the micro size (latents of 16) the batch is faster.
SLICED_FROM = 64


def load_pipeline(diffusion: DiffusionParams) -> Pipeline:
    """The pipeline of `diffusion.model`, a folder or a hub id, ready for use (`prepare_pipeline`).

    On a CPU without instructions for bfloat16 that dtype becomes float32, with a line on stdout.
    Raises ValueError, saying what to do, for a missing or damaged model, weights that are not
    all its own, settings of it that are not followed here, settings of the profile that do not fit
    it, a scheduler that can't draw with it or a device that is not there.
    """
    device = find_device(diffusion.device, "diffusion.device")  # before anything is downloaded
    check_name(diffusion.scheduler)
    folder = find_checkpoint(diffusion.model, diffusion.revision, diffusion.variant, diffusion)
    dtype = getattr(torch, usable_precision(diffusion.dtype, device.type))
    pipe = read_pipeline(folder, diffusion.variant, dtype)
    return prepare_pipeline(pipe, diffusion)


def prepare_pipeline(pipe: Pipeline, diffusion: DiffusionParams) -> Pipeline:
    """The pipeline frozen, on its device, its scheduler set by name, memory saved as asked for.

    Parameters are in eval mode without gradients, the safety checker and the progress bar are off.
    Raises ValueError for settings that do not fit this kind of model.
    """
    backbone = backbone_of(pipe)
    backbone.check(diffusion)
    set_scheduler(pipe, diffusion.scheduler)
    backbone.process.check(pipe.scheduler, diffusion.steps)
    for part in (denoiser(pipe), pipe.vae, *text_encoders(pipe)):
        part.eval().requires_grad_(False)
    backbone.configure(pipe, diffusion)
    if latent_shape(pipe)[-1] >= SLICED_FROM:
        pipe.vae.enable_slicing()
    if diffusion.vae_tiling:
        tile_vae(pipe)
    if diffusion.attention_slicing:
        pipe.enable_attention_slicing()
    if diffusion.quantise is not None:
        quantise(pipe, diffusion.quantise)
    device = find_device(diffusion.device, "diffusion.device")
    if diffusion.offload != "none" and device.type != "cpu":
        return offload(pipe, diffusion.offload, device)
    return pipe.to(device)


def read_pipeline(folder: Path, variant: str | None, dtype: torch.dtype) -> Pipeline:
    """The pipeline in a folder, of the class that its model_index.json names, on the CPU.

    Raises ValueError for weights that are missing, unknown, of another shape or not finite. Its
    passes raise NotFinite (`guard`).
    """
    kind = kind_of(folder)
    there = parts_of(folder)
    absent = dict.fromkeys([part for part in kind.optional if part not in there])
    absent |= dict.fromkeys(map(tokenizer_of, absent))
    parts = {
        part: load_whole(
            kind.networks[part],
            str(folder / part),
            str(folder / part),
            dtype=dtype,
            variant=weight_files(folder, part, variant)[1],
        )
        for part in there
    }
    for part in ("scheduler", *map(tokenizer_of, kind.text)):
        for file in sorted((folder / part).glob("*.json")):
            read_object(file)  # the libraries' errors do not name it
    with configured(f"{folder}, its scheduler or tokenizer"):
        pipe = cast(
            Pipeline,
            kind.pipeline.from_pretrained(
                str(folder), dtype=dtype, **parts, **absent, **kind.extra
            ),
        )
        pipe.scheduler = unclipped(type(pipe.scheduler), pipe.scheduler.config)
    _fit_tokenizers(pipe, folder)
    guard(pipe)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _fit_tokenizers(pipe: Pipeline, folder: Path) -> None:
    """Cuts texts to what the encoders read, where a tokenizer does not know its length.

    Raises ValueError for a tokenizer with tokens that its encoder has no embedding of.
    """
    for part in kind_of_pipe(pipe).text:
        encoder = getattr(pipe, part)
        if encoder is None:
            continue
        cutter, known = getattr(pipe, tokenizer_of(part)), encoder.config.vocab_size
        cutter.model_max_length = min(cutter.model_max_length, reads(encoder.config.to_dict()))
        if len(cutter) > known:
            raise ValueError(
                f"{folder}: {tokenizer_of(part)} has {len(cutter)} tokens, {part} "
                f"embeddings of {known}: take both from one checkpoint (words added by textual "
                "inversion have to be saved with the text encoder)"
            )
    if hasattr(pipe, "tokenizer_max_length"):  # noted when the pipeline was made
        pipe.tokenizer_max_length = pipe.tokenizer.model_max_length


def tile_vae(pipe: Pipeline) -> None:
    """Encodes and decodes pictures in overlapping tiles of half their side, in a quarter of the
    memory.

    The pixels differ a little from the whole picture's: the VAE normalises over what it sees. By
    default it tiles only what is larger than the pictures it was trained on.
    """
    pipe.vae.enable_tiling()
    pipe.vae.tile_sample_min_size = picture_size(pipe)[0] // 2
    pipe.vae.tile_latent_min_size = latent_shape(pipe)[-1] // 2


def text_encoders(pipe: Pipeline) -> list[PreTrainedModel]:
    """All that the pipeline has, in their order."""
    named = [getattr(pipe, part) for part in kind_of_pipe(pipe).text]
    return [encoder for encoder in named if encoder is not None]


def set_scheduler(pipe: Pipeline, name: str) -> None:
    """Swaps the pipeline's scheduler for another class of diffusers, keeping its noise schedule.

    Raises ValueError, listing the names that fit, for a name that does not fit, or a class that
    cannot keep the model's schedule.
    """
    check_name(name)
    pipe.scheduler = backbone_of(pipe).process.swapped(pipe.scheduler, name)


def guard(pipe: Pipeline) -> None:
    """Makes every pass of the denoiser and the VAE, whoever calls it, raise NotFinite where its
    output has numbers that are not finite; the error names dtype and scheduler.

    Within `unwatched` the denoiser's are left to the caller.
    """

    # Networks hold their hooks: one that held the pipeline or a network would keep all weights on
    # the device until a full garbage collection, beside the next stage's.
    owner = weakref.ref(pipe)

    def look(what: str, left_out: bool = False) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if left_out and _left_to_the_caller.get():
                return
            values = output[0] if isinstance(output, tuple) else getattr(output, "sample", output)
            settings = "diffusion.dtype " + str(values.dtype).removeprefix("torch.")
            if (alive := owner()) is not None:  # else another pipeline has its networks
                settings += f", diffusion.scheduler {type(alive.scheduler).__name__}"
            check_finite(
                values,
                f"{what} ({settings})",
                "set diffusion.dtype to bfloat16 or "
                "float32, which hold larger numbers, or take another scheduler",
            )

        return hook

    denoiser(pipe).register_forward_hook(look("the denoiser's predictions", left_out=True))
    pipe.vae.encoder.register_forward_hook(look("the latents of pictures"))
    pipe.vae.decoder.register_forward_hook(look("the pictures"))  # before they are clamped


_left_to_the_caller: ContextVar[bool] = ContextVar("left_to_the_caller", default=False)


@contextmanager
def unwatched() -> Iterator[None]:
    """Passes of the denoiser in this block are checked by the caller: on a GPU `guard` waits for
    each, and a training step has more to give to the GPU meanwhile."""
    token = _left_to_the_caller.set(True)
    try:
        yield
    finally:
        _left_to_the_caller.reset(token)


def latent_shape(pipe: Pipeline) -> tuple[int, int, int]:
    """(C, h, w) of one latent of the pipeline's own picture size."""
    return backbone_of(pipe).shape(pipe)


def picture_size(pipe: Pipeline) -> tuple[int, int]:
    """(H, W) of the pipeline's pictures, pixels."""
    _, height, width = latent_shape(pipe)
    return height * pipe.vae_scale_factor, width * pipe.vae_scale_factor
