"""The table of the text-to-image models that are known, by the class of their pipeline."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
    StableDiffusion3Pipeline,
)
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import (
    StableDiffusionXLPipeline,
)
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel

from ml.diffusion.backbones.flux import Flux
from ml.diffusion.backbones.mmdit import MMDiT
from ml.diffusion.backbones.protocol import Backbone
from ml.diffusion.backbones.unet import UNet
from ml.diffusion.pipeline import Pipeline

UNUSED: dict[str, object] = {"feature_extractor": None, "image_encoder": None}
"""Parts that are named in model_index.json, often without their files, and not used here."""


@dataclass(frozen=True)
class Kind:
    pipeline: type[Any]  # of diffusers
    backbone: Backbone
    networks: Mapping[str, type[nn.Module]]  # the parts that have weights, and their classes
    words: tuple[str, ...]  # the text encoders whose tokens words are read from, in this order
    text: tuple[str, ...]  # all text encoders
    extra: Mapping[str, object] = field(default_factory=dict)  # arguments of from_pretrained
    optional: tuple[str, ...] = ()  # parts that a model may be without

    @property
    def configs(self) -> dict[str, str]:
        """The configuration file of each part."""
        return {part: "config.json" for part in self.networks} | {
            "scheduler": "scheduler_config.json"
        }


KINDS: dict[str, Kind] = {
    "StableDiffusionPipeline": Kind(
        StableDiffusionPipeline,
        UNet(),
        {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel},
        ("text_encoder",),
        ("text_encoder",),
        UNUSED | {"safety_checker": None, "requires_safety_checker": False},
    ),
    # Without the watermark: whether one is drawn into the pictures would depend on what else is
    # installed here.
    "StableDiffusionXLPipeline": Kind(
        StableDiffusionXLPipeline,
        UNet(),
        {
            "unet": UNet2DConditionModel,
            "vae": AutoencoderKL,
            "text_encoder": CLIPTextModel,
            "text_encoder_2": CLIPTextModelWithProjection,
        },
        ("text_encoder", "text_encoder_2"),
        ("text_encoder", "text_encoder_2"),
        UNUSED | {"add_watermarker": False},
    ),
    "StableDiffusion3Pipeline": Kind(
        StableDiffusion3Pipeline,
        MMDiT(),
        {
            "transformer": SD3Transformer2DModel,
            "vae": AutoencoderKL,
            "text_encoder": CLIPTextModelWithProjection,
            "text_encoder_2": CLIPTextModelWithProjection,
            "text_encoder_3": T5EncoderModel,
        },
        ("text_encoder", "text_encoder_2"),
        ("text_encoder", "text_encoder_2", "text_encoder_3"),
        UNUSED,
        ("text_encoder_3",),
    ),
    "FluxPipeline": Kind(
        FluxPipeline,
        Flux(),
        {
            "transformer": FluxTransformer2DModel,
            "vae": AutoencoderKL,
            "text_encoder": CLIPTextModel,
            "text_encoder_2": T5EncoderModel,
        },
        ("text_encoder_2",),
        ("text_encoder", "text_encoder_2"),
        UNUSED,
    ),
}


def kind_of_pipe(pipe: Pipeline) -> Kind:
    """The row of a loaded pipeline. Raises ValueError for a class that is not in the table."""
    name = type(pipe).__name__
    if name not in KINDS:
        raise ValueError(f"expected a pipeline of {sorted(KINDS)}, got {name}")
    return KINDS[name]


def kind_of_parts(parts: Collection[str]) -> Kind:
    """The row whose parts with weights have these names. Raises ValueError where there is none."""
    for kind in KINDS.values():
        if set(kind.networks) == set(parts):
            return kind
    raise ValueError(f"expected the parts of one of {sorted(KINDS)}, got {sorted(parts)}")


def backbone_of(pipe: Pipeline) -> Backbone:
    return kind_of_pipe(pipe).backbone


def denoiser(pipe: Pipeline) -> ModelMixin:
    """The network that predicts: its U-Net, or its transformer."""
    network: ModelMixin = getattr(pipe, backbone_of(pipe).part)
    return network


def tokenizer_of(encoder: str) -> str:
    """The part that cuts texts for a text encoder: text_encoder_2 has tokenizer_2."""
    return encoder.replace("text_encoder", "tokenizer")


def backbone_of_network(network: nn.Module) -> Backbone:
    """By the class of a denoiser alone. Raises ValueError for one that is not in the table."""
    for kind in KINDS.values():
        if isinstance(network, kind.networks[kind.backbone.part]):
            return kind.backbone
    raise ValueError(f"expected the denoiser of {sorted(KINDS)}, got {type(network).__name__}")
