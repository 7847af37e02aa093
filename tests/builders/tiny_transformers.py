"""A Stable Diffusion 3 without T5, of the micro world's shape, and a FLUX without text encoders, of
random weights, for tests."""

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from ml.foundation.transformer_model import assemble, make_transformer
from tests.builders.tiny import WIDTH, tiny_pipeline

BLOCKS, HEADS, HEAD_WIDTH = 3, 2, 8


def tiny_sd3() -> StableDiffusion3Pipeline:
    """A fresh pipeline; the same weights at every call. Its text matters as in a trained model."""
    own = tiny_pipeline()
    own.vae.register_to_config(shift_factor=0.0)  # that pipeline adds it
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = CLIPTextConfig(**own.text_encoder.config.to_dict())
        towers = [CLIPTextModelWithProjection(config) for _ in range(2)]
        transformer = make_transformer(2 * WIDTH, BLOCKS, HEADS, HEAD_WIDTH)
        for value in transformer.parameters():
            if value.ndim == 2:
                value.data.mul_(4)
    pipe = assemble(own.vae, tuple(towers), own.tokenizer, transformer)
    pipe.set_progress_bar_config(disable=True)
    for part in (transformer, *towers):
        part.eval().requires_grad_(False)
    return pipe


def tiny_flux() -> FluxPipeline:
    """A transformer of two joint blocks and a single one; the same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        transformer = FluxTransformer2DModel(
            in_channels=8,
            num_layers=2,
            num_single_layers=1,
            attention_head_dim=HEAD_WIDTH,
            num_attention_heads=HEADS,
            joint_attention_dim=12,
            pooled_projection_dim=6,
            axes_dims_rope=(4, 2, 2),
        )
    none = dict.fromkeys(
        ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"), None
    )
    pipe = FluxPipeline(FlowMatchEulerDiscreteScheduler(), transformer=transformer.eval(), **none)
    pipe.default_sample_size = 16
    return pipe
