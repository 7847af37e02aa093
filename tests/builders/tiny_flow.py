"""Diffusion transformers of the published kinds at a size for tests, of random weights: Stable
Diffusion 3 with and without T5, FLUX dev and schnell.

Latents of 4 channels and 16x16, pictures of 64 pixels; every part is diffusers' or transformers'
own class.
"""

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from ml.foundation.tokenizer import MAX_LENGTH as LENGTH
from ml.foundation.tokenizer import build_tokenizer
from tests.builders.tiny import WORDS

SIDE = 16
WIDTHS = 16, 24
"""Of the two CLIP encoders."""
T5_WIDTH = 48
KINDS = "sd3", "sd3-t5", "flux-dev", "flux-schnell"
WHOLE = ("dog", "cat", "grass", "photograph", "a", "of", "and", "on", "potted")
"""Words that T5's tokenizer here has as one token; the others fall into letters."""


def tiny_flow(name: str, **scheduler) -> StableDiffusion3Pipeline | FluxPipeline:
    """A fresh pipeline of one of KINDS; the same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe = (_flux if name.startswith("flux") else _sd3)(name, scheduler)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.eval().requires_grad_(False)
        network: torch.nn.Module = pipe.transformer
        # With fresh weights the text hardly matters; make it matter as in a trained model.
        for key, value in network.named_parameters():
            if "context_embedder.weight" in key or "add_v_proj.weight" in key:
                value.data.mul_(4)
    pipe.set_progress_bar_config(disable=True)
    return shrunk(pipe)


def shrunk(pipe):
    """FLUX names no size in any file: its pipeline's is 1024 pixels until it is told another."""
    pipe.default_sample_size = SIDE
    return pipe


def save_tiny_flow(folder: Path, name: str) -> Path:
    """Writes it as `from_pretrained` reads it; returns the folder."""
    tiny_flow(name).save_pretrained(folder, safe_serialization=True)
    return folder


def t5_tokenizer() -> T5Tokenizer:
    """A unigram model of T5's own kind: some whole words, all other letters alone."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [("▁" + word, -2.0) for word in WHOLE]
    pieces += [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz,."]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def _sd3(name: str, scheduler: dict) -> StableDiffusion3Pipeline:
    texts = {"text_encoder_3": None, "tokenizer_3": None}
    if name == "sd3-t5":
        texts = {"text_encoder_3": _t5(), "tokenizer_3": t5_tokenizer()}
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(
            sample_size=SIDE,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=5,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=T5_WIDTH,
            pooled_projection_dim=sum(WIDTHS),
            pos_embed_max_size=12,
            dual_attention_layers=(0, 1),
            qk_norm="rms_norm",
        ),
        vae=_vae(1.5305, 0.0609),
        text_encoder=_clip(WIDTHS[0], CLIPTextModelWithProjection),
        tokenizer=build_tokenizer([WORDS]),
        text_encoder_2=_clip(WIDTHS[1], CLIPTextModelWithProjection),
        tokenizer_2=build_tokenizer([WORDS]),
        scheduler=FlowMatchEulerDiscreteScheduler(**{"shift": 3.0} | scheduler),
        **texts,
    )


def _flux(name: str, scheduler: dict) -> FluxPipeline:
    dev = name == "flux-dev"
    own = {"shift": 3.0, "use_dynamic_shifting": True} if dev else {"shift": 1.0}
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=3,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=T5_WIDTH,
            pooled_projection_dim=WIDTHS[0],
            guidance_embeds=dev,
            axes_dims_rope=(2, 2, 4),
        ),
        vae=_vae(0.3611, 0.1159),
        text_encoder=_clip(WIDTHS[0], CLIPTextModel),
        tokenizer=build_tokenizer([WORDS]),
        text_encoder_2=_t5(),
        tokenizer_2=t5_tokenizer(),
        scheduler=FlowMatchEulerDiscreteScheduler(**own | scheduler),
    )


def _vae(scaling: float, shift: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
        mid_block_add_attention=False,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        use_quant_conv=False,
        use_post_quant_conv=False,
        scaling_factor=scaling,
        shift_factor=shift,
    )


def _clip(width: int, kind: type) -> torch.nn.Module:
    tokenizer = build_tokenizer([WORDS])
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=LENGTH,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()),
            d_model=T5_WIDTH,
            d_kv=8,
            d_ff=2 * T5_WIDTH,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )
