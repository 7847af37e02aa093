"""Stable Diffusion 3, 3.5 and FLUX.1 by the fields of their published configuration files.

Built on torch's meta device, where a model has shapes and no numbers: for counts, channels and the
rules of configurations, where none can be downloaded. What the published files say beside these
fields are the defaults of diffusers' and transformers' classes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import CLIPTextConfig, T5Config

from ml.diffusion.backbones.kinds import KINDS

_LATENTS = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "sample_size": 1024,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
_SD3_VAE = _LATENTS | {"scaling_factor": 1.5305, "shift_factor": 0.0609}
_FLUX_VAE = _LATENTS | {"scaling_factor": 0.3611, "shift_factor": 0.1159}


def _clip(width: int, layers: int, heads: int, act: str) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "projection_dim": width,
        "hidden_act": act,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
    }


CLIP_L, OPENCLIP_G = _clip(768, 12, 12, "quick_gelu"), _clip(1280, 32, 20, "gelu")
T5_XXL = {
    "d_model": 4096,
    "d_ff": 10240,
    "d_kv": 64,
    "num_layers": 24,
    "num_heads": 64,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
}
_SD3_TEXTS = {"text_encoder": CLIP_L, "text_encoder_2": OPENCLIP_G, "text_encoder_3": T5_XXL}
_FLUX_TEXTS = {"text_encoder": CLIP_L, "text_encoder_2": T5_XXL}


def _mmdit(layers: int, **more: Any) -> dict[str, Any]:
    """As many heads of 64 channels as the published models have: 24, in large one a layer."""
    heads = max(24, layers)
    return {
        "sample_size": 128,
        "patch_size": 2,
        "in_channels": 16,
        "out_channels": 16,
        "num_layers": layers,
        "attention_head_dim": 64,
        "num_attention_heads": heads,
        "joint_attention_dim": 4096,
        "caption_projection_dim": 64 * heads,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192,
    } | more


def _flux(guided: bool) -> dict[str, Any]:
    return {
        "patch_size": 1,
        "in_channels": 64,
        "num_layers": 19,
        "num_single_layers": 38,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 4096,
        "pooled_projection_dim": 768,
        "guidance_embeds": guided,
        "axes_dims_rope": (16, 56, 56),
    }


_FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
_SHIFTED = _FLOW | {"shift": 3.0}
_SHIFTS = {
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}


@dataclass(frozen=True)
class Published:
    pipeline: str  # class of diffusers
    parts: dict[str, dict[str, Any]]  # with weights
    scheduler: dict[str, Any]

    def network(self, part: str) -> nn.Module:
        """A part on the meta device."""
        kind, own = KINDS[self.pipeline].networks[part], self.parts[part]
        with torch.device("meta"):
            if part.startswith("text_encoder"):
                config = T5Config(**own) if "d_model" in own else CLIPTextConfig(**own)
                return kind(config)
            return kind(**own)

    def configs(self) -> dict[str, dict[str, Any]]:
        """As the files say them, for `ml.diffusion.configurations.check_configs`."""
        return self.parts | {"scheduler": self.scheduler}


def _sd3(transformer: dict[str, Any]) -> Published:
    parts = {"transformer": transformer, "vae": _SD3_VAE, **_SD3_TEXTS}
    return Published("StableDiffusion3Pipeline", parts, _SHIFTED)


PUBLISHED = {
    "stabilityai/stable-diffusion-3-medium-diffusers": _sd3(_mmdit(24)),
    "stabilityai/stable-diffusion-3.5-medium": _sd3(
        _mmdit(
            24, pos_embed_max_size=384, qk_norm="rms_norm", dual_attention_layers=tuple(range(13))
        )
    ),
    "stabilityai/stable-diffusion-3.5-large": _sd3(_mmdit(38, qk_norm="rms_norm")),
    "black-forest-labs/FLUX.1-dev": Published(
        "FluxPipeline",
        {"transformer": _flux(True), "vae": _FLUX_VAE, **_FLUX_TEXTS},
        _SHIFTED | _SHIFTS | {"use_dynamic_shifting": True},
    ),
    "black-forest-labs/FLUX.1-schnell": Published(
        "FluxPipeline",
        {"transformer": _flux(False), "vae": _FLUX_VAE, **_FLUX_TEXTS},
        _FLOW | _SHIFTS | {"shift": 1.0, "use_dynamic_shifting": False},
    ),
}
"""By the model's id on the hub."""


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
