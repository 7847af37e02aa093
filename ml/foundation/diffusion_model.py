"""The micro world's text-to-image model: its networks, its noise, and the pipeline it is saved as.

Not here: how it is trained (`train_diffusion.py`), sampling for the pipeline (`ml/diffusion`).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.modeling_utils import ModelMixin
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ml.store.files import replace_folder

CHANNELS, HEADS = (48, 96, 128), 2
TEXT_WIDTH, TEXT_HEADS = 64, 4
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}
"""Stable Diffusion's noise; its last step keeps 7 % of the signal's amplitude."""

SAMPLE_PROMPTS = tuple(
    f"a photograph of {thing}"
    for thing in (
        "a dog", "a person", "a bicycle", "an aeroplane", "a red car", "a cat and a sofa",
        "a horse and a train", "a bottle and a chair",
    )
)  # fmt: skip


def make_unet(channels: tuple[int, int, int] = CHANNELS) -> UNet2DConditionModel:
    """Random weights; 4.3 M parameters by default. Cross-attention at 16x16 and 8x8, not at 4x4
    (the mid block has it too). diffusers reads attention_head_dim as the number of heads."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=6,
        out_channels=6,
        layers_per_block=1,
        block_out_channels=channels,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=8,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=HEADS,
    )
    # Plain matrix products: torch's fused attention is slow on CPUs at 12 to 32 channels a head
    # (docs/ablations.md).
    unet.set_attn_processor(AttnProcessor())
    return unet.to(memory_format=torch.channels_last)


def text_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    """Of a CLIP text model of 2 layers for the tokenizer's texts."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=TEXT_HEADS,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Random weights; a CLIP text model of 2 layers, trained together with the U-Net."""
    return CLIPTextModel(text_config(tokenizer, TEXT_WIDTH))


def token_ids(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """int64 (N, model_max_length), padded as StableDiffusionPipeline pads."""
    return tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids


def load_autoencoder(folder: Path) -> AutoencoderKL:
    """Read by hand: from_pretrained writes the folder's name into the config that is saved."""
    vae = AutoencoderKL.from_config(AutoencoderKL.load_config(folder))
    load_weights(vae, folder / "diffusion_pytorch_model.safetensors")
    return vae


def load_weights(model: torch.nn.Module, file: Path) -> None:
    """Fill a model from a safetensors file, which may be float16. RuntimeError if keys differ."""
    model.load_state_dict(load_file(file))


def alphas_cumprod() -> torch.Tensor:
    """float32 (1000,): the share of signal power left at each timestep (alpha-bar)."""
    betas = torch.linspace(
        NOISE_SCHEDULE["beta_start"] ** 0.5, NOISE_SCHEDULE["beta_end"] ** 0.5, 1000
    )
    return (1 - betas.square()).cumprod(0)


def assemble(
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
) -> StableDiffusionPipeline:
    """The pipeline over these modules themselves, not copies of them."""
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=DPMSolverMultistepScheduler(**NOISE_SCHEDULE, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(pipe: StableDiffusionPipeline, out: Path) -> None:
    """Save as a diffusers folder, each part swapped in whole; other files in OUT stay.

    The U-Net goes out in float16 (8.7 MB; the checkpoints together have 25 MB) and diffusers loads
    it as float32 again; the text encoder stays float32, since transformers keeps the file's type.
    """
    with replacing_parts(out) as partial:
        half = half_copy(pipe.unet)
        assemble(pipe.vae, pipe.text_encoder, pipe.tokenizer, half).save_pretrained(partial)


def half_copy(network: ModelMixin) -> ModelMixin:
    """A denoiser's copy in float16 on the CPU; the network itself stays as it is."""
    copy = type(network).from_config(network.config)
    copy.load_state_dict({k: v.cpu().contiguous() for k, v in network.state_dict().items()})
    return copy.half()


@contextmanager
def replacing_parts(out: Path) -> Iterator[Path]:
    """A folder to save a pipeline in, whose parts then replace those of OUT, each swapped in whole;
    other files in OUT stay."""
    partial = out / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    yield partial
    for part in sorted(partial.iterdir()):
        if part.is_dir():
            replace_folder(part, out / part.name)
        else:
            os.replace(part, out / part.name)
    partial.rmdir()


def save_samples(pipe: DiffusionPipeline, path: Path, **options: object) -> None:
    """One picture a prompt of SAMPLE_PROMPTS in a row, doubled in size, for the eye. options: of
    the pipeline's call."""
    pipe.set_progress_bar_config(disable=True)
    pictures = pipe(
        list(SAMPLE_PROMPTS), num_inference_steps=15, guidance_scale=4.0, output_type="np",
        generator=torch.Generator().manual_seed(1), **options,
    ).images  # fmt: skip
    row = Image.fromarray((np.concatenate(list(pictures), axis=1) * 255).round().astype(np.uint8))
    row.resize((2 * row.width, 2 * row.height), Image.Resampling.NEAREST).save(path)
