"""Stable Diffusion pipelines of the published shapes with random weights: the real classes.

For speed, memory and shapes, which do not depend on the weights, where none can be downloaded.
The figures are those of the models' own config files. The `tiny` shapes have the same kinds of
blocks at a size for tests.
"""

from dataclasses import dataclass

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ml.diffusion.pipeline import Pipeline
from ml.foundation.tokenizer import build_tokenizer

WORDS = (
    "a an photograph of and next to near on grass dog cat bus car aeroplane horse sheep "
    "dining table potted plant red blue"
)
"""One token each; any other word falls into pieces."""


@dataclass(frozen=True)
class Shape:
    unet: dict
    vae: dict
    texts: tuple[dict, ...]  # one text encoder, or SDXL's two
    tokens: int = 77
    prediction_type: str = "epsilon"


def _vae(size: int, scaling: float) -> dict:
    return {
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": size,
        "scaling_factor": scaling,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }


_TINY_VAE = {
    "block_out_channels": (8, 8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "sample_size": 64,
    "mid_block_add_attention": False,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "scaling_factor": 0.8,
}
_CROSS = {
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
}
_XL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
}


def _text(width: int, layers: int, heads: int, projection: int, act: str = "quick_gelu") -> dict:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": projection,
        "hidden_act": act,
    }


SHAPES = {
    "sd-v1": Shape(
        {
            "sample_size": 64,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
            "block_out_channels": (320, 640, 1280, 1280),
        },
        _vae(512, 0.18215),
        (_text(768, 12, 12, 768),),
    ),
    "sd-2.1-base": Shape(
        {
            "sample_size": 64,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
            "block_out_channels": (320, 640, 1280, 1280),
        },
        _vae(512, 0.18215),
        (_text(1024, 23, 16, 512, "gelu"),),
    ),
    "sd-2.1": Shape(
        {
            "sample_size": 96,
            "cross_attention_dim": 1024,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
            "block_out_channels": (320, 640, 1280, 1280),
        },
        _vae(768, 0.18215),
        (_text(1024, 23, 16, 512, "gelu"),),
        prediction_type="v_prediction",
    ),
    "sdxl": Shape(
        _XL
        | {
            "sample_size": 128,
            "cross_attention_dim": 2048,
            "block_out_channels": (320, 640, 1280),
            "attention_head_dim": (5, 10, 20),
            "transformer_layers_per_block": (1, 2, 10),
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 1280 + 6 * 256,
        },
        _vae(1024, 0.13025),
        (_text(768, 12, 12, 768), _text(1280, 32, 20, 1280, "gelu")),
    ),
    "tiny": Shape(
        _CROSS
        | {
            "sample_size": 16,
            "cross_attention_dim": 16,
            "attention_head_dim": 2,
            "layers_per_block": 1,
            "block_out_channels": (8, 16, 24),
            "norm_num_groups": 4,
        },
        _TINY_VAE,
        (_text(16, 2, 2, 16),),
        tokens=24,
    ),
    # 24 is no power of 2, as the 96 of SD 2.1 at 768 pixels
    "tiny-2.1": Shape(
        _CROSS
        | {
            "sample_size": 24,
            "cross_attention_dim": 32,
            "attention_head_dim": (2, 4, 6),
            "layers_per_block": 2,
            "block_out_channels": (8, 16, 24),
            "norm_num_groups": 4,
            "use_linear_projection": True,
        },
        _TINY_VAE | {"sample_size": 96},
        (_text(32, 3, 4, 20, "gelu"),),
        tokens=24,
        prediction_type="v_prediction",
    ),
    "tiny-xl": Shape(
        _XL
        | {
            "sample_size": 16,
            "cross_attention_dim": 16 + 24,
            "attention_head_dim": (2, 4, 6),
            "layers_per_block": 1,
            "block_out_channels": (8, 16, 24),
            "norm_num_groups": 4,
            "transformer_layers_per_block": (1, 1, 2),
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 20 + 6 * 8,
        },
        _TINY_VAE,
        (_text(16, 2, 2, 16), _text(24, 3, 4, 20, "gelu")),
        tokens=24,
    ),
}


def random_pipeline(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Pipeline:
    """A fresh pipeline of a shape in SHAPES; the same weights at every call on one device."""
    shape, usual = SHAPES[name], torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            unet, vae = UNet2DConditionModel(**shape.unet), AutoencoderKL(**shape.vae)
            texts = [
                _text_encoder(own, kind, shape.tokens)
                for own, kind in zip(
                    shape.texts, (CLIPTextModel, CLIPTextModelWithProjection), strict=False
                )
            ]
    finally:
        torch.set_default_dtype(usual)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=shape.prediction_type,
    )
    parts = {
        "vae": vae,
        "unet": unet,
        "scheduler": scheduler,
        "text_encoder": texts[0],
        "tokenizer": _tokenizer(shape.tokens),
    }
    if len(texts) == 1:
        pipe = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    else:
        second = _tokenizer(shape.tokens)
        second.pad_token = "!"  # as in SDXL
        pipe = StableDiffusionXLPipeline(
            **parts, text_encoder_2=texts[1], tokenizer_2=second, add_watermarker=False
        )
    pipe.set_progress_bar_config(disable=True)
    for part in (unet, vae, *texts):
        part.eval().requires_grad_(False)
    return pipe


def _tokenizer(tokens: int):
    tokenizer = build_tokenizer([WORDS])
    tokenizer.model_max_length = tokens
    return tokenizer


def _text_encoder(config: dict, kind: type, tokens: int):
    own = _tokenizer(tokens)
    return kind(
        CLIPTextConfig(
            vocab_size=len(own),
            max_position_embeddings=tokens,
            bos_token_id=own.bos_token_id,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
            **config,
        )
    )
