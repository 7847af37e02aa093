"""The micro world's diffusion transformer: its networks and the pipeline it is saved as.

A small Stable Diffusion 3 (arXiv 2403.03206) without T5, in the latents of the autoencoder that the
U-Net has. Not here: how it is trained (`train_transformer.py`), sampling (`ml/diffusion`).
"""

import os
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from ml.compute.weights import fill
from ml.foundation.diffusion_model import half_copy, replacing_parts, text_config

LAYERS, HEADS, HEAD_WIDTH = 5, 2, 64
SECOND_WIDTH = 16
"""Of the second text tower; Stable Diffusion 3 has two (CLIP L and G)."""
VAE_WEIGHTS = "diffusion_pytorch_model.safetensors"


def make_transformer(
    text_width: int, layers: int, heads: int, head_width: int
) -> SD3Transformer2DModel:
    """Random weights; 3.0 M parameters with LAYERS, HEADS and HEAD_WIDTH. text_width: of both text
    towers together.

    A token is one place of the latent (patch size 1), so that features have 16x16 places, as the
    finest that the U-Net attends at.
    """
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=1,
        in_channels=6,
        out_channels=6,
        num_layers=layers,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        joint_attention_dim=text_width,
        caption_projection_dim=heads * head_width,
        pooled_projection_dim=text_width,
        pos_embed_max_size=16,
        qk_norm="rms_norm",
        dual_attention_layers=(0,),
    )


def first_tower(folder: Path) -> CLIPTextModelWithProjection:
    """The text encoder of a StableDiffusionPipeline's folder, with a projection of random weights.
    Raises ValueError for weights that are not all its own."""
    config = CLIPTextConfig.from_pretrained(folder / "text_encoder")
    tower = CLIPTextModelWithProjection(config)
    file = folder / "text_encoder/model.safetensors"
    fill(tower.text_model, load_file(file), str(file))
    return tower


def make_text_tower(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModelWithProjection:
    """Random weights; a CLIP text model of 2 layers with its projection."""
    return CLIPTextModelWithProjection(text_config(tokenizer, width))


def encode_text(
    towers: tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection],
    ids: torch.Tensor,
    absent: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(states (B,T+absent,80), pooled (B,80)) as StableDiffusion3Pipeline makes them: each tower's
    last but one layer side by side, then as many zeros as T5, absent, would have tokens."""
    outputs = [tower(ids, output_hidden_states=True) for tower in towers]
    states = torch.cat([own.hidden_states[-2] for own in outputs], dim=-1)
    states = torch.nn.functional.pad(states, (0, 0, 0, absent))
    return states, torch.cat([own.text_embeds for own in outputs], dim=-1)


def assemble(
    vae: AutoencoderKL,
    towers: tuple[CLIPTextModelWithProjection, CLIPTextModelWithProjection],
    tokenizer: CLIPTokenizer,
    transformer: SD3Transformer2DModel,
) -> StableDiffusion3Pipeline:
    """The pipeline over these modules themselves, not copies of them."""
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=vae,
        text_encoder=towers[0],
        tokenizer=tokenizer,
        text_encoder_2=towers[1],
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def export(pipe: StableDiffusion3Pipeline, out: Path, vae: Path) -> None:
    """Save as a diffusers folder, each part swapped in whole; other files in OUT stay.

    The transformer goes out in float16, as the U-Net does; the text towers stay float32, since
    transformers keeps the file's type. The autoencoder's weights are those of the folder `vae`, by
    a link: the checkpoints together have 25 MB.
    """
    towers = (pipe.text_encoder, pipe.text_encoder_2)
    with replacing_parts(out) as partial:
        half = half_copy(pipe.transformer)
        assemble(pipe.vae, towers, pipe.tokenizer, half).save_pretrained(partial)
        weights = partial / "vae" / VAE_WEIGHTS
        weights.unlink()
        weights.symlink_to(os.path.relpath((vae / VAE_WEIGHTS).resolve(), (out / "vae").resolve()))
