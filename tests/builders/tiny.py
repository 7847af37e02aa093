"""A Stable Diffusion of the micro world's shape and a backbone, of random weights, for tests.

The same classes, latents (6 channels, 16x16) and cross-attention places as the trained one, a
tenth of its size; its pictures are noise, but every contract of the code can be tested on it.
"""

import dataclasses
import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, ResNetConfig, ResNetForImageClassification

from ml.diffusion.loading import load_pipeline
from ml.foundation.tokenizer import MAX_LENGTH as LENGTH
from ml.foundation.tokenizer import build_tokenizer
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params

WORDS = (
    "a an photograph of and next to near on grass dog cat bus car aeroplane horse sheep "
    "dining table potted plant red blue"
)
"""One token each; any other word falls into pieces."""
WIDTH = 16


def tiny_pipeline(prediction_type: str = "v_prediction") -> StableDiffusionPipeline:
    """A fresh pipeline; the same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = build_tokenizer([WORDS])
        ids = {
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=WIDTH,
                intermediate_size=2 * WIDTH,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=LENGTH,
                projection_dim=WIDTH,
                **ids,
            )
        )
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=6,
            sample_size=64,
            mid_block_add_attention=False,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            scaling_factor=0.8,
        )
        unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=6,
            out_channels=6,
            layers_per_block=1,
            block_out_channels=(8, 16, 24),
            norm_num_groups=4,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        )
        # With fresh weights the text hardly matters; make it matter as in a trained model.
        for name, value in unet.named_parameters():
            if "attn2.to_" in name and value.ndim == 2:
                value.data.mul_(4)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    for part in (unet, vae, text):
        part.eval().requires_grad_(False)
    return pipe


def save_tiny_pipeline(folder: Path, prediction_type: str = "v_prediction") -> Path:
    """Writes it as `StableDiffusionPipeline.from_pretrained` reads it; returns the folder."""
    tiny_pipeline(prediction_type).save_pretrained(folder, safe_serialization=True)
    return folder


def settings(folder=None, **changes):
    """Micro's diffusion settings on the CPU; folder: of another model."""
    changes = {"device": "cpu"} | ({} if folder is None else {"model": str(folder)}) | changes
    return dataclasses.replace(load_params().diffusion, **changes)


def load(folder, **changes):
    """The pipeline of a folder, as stages load it."""
    return load_pipeline(
        Workspace(Path(folder).parent, "micro").located(settings(folder, **changes))
    )


def edit(file: Path, **changes) -> None:
    """Changes fields of a JSON file; None takes one out."""
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def tiny_backbone(folder):
    """A random ResNet classifier, saved."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ResNetForImageClassification(
            ResNetConfig(
                embedding_size=32,
                hidden_sizes=[32, 32, 32, 32],
                num_labels=20,
                depths=[1, 1, 1, 1],
                layer_type="basic",
            )
        ).save_pretrained(folder)
    return folder
