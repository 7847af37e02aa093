"""The configuration fields of a text-to-image model, each followed or refused.

The parts run as diffusers' and transformers' own classes, which honour every argument that they
have. Refused is what needs more than the passes here give (pictures are drawn by diffusers'
pipeline; features, evidence and inversion call the U-Net and the VAE themselves), and what no class
here knows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ml.diffusion.schedulers import PREDICTIONS, TIMESTEPS

CLIP_WIDTH = 512
"""CLIPTextConfig's default of hidden_size and projection_dim, for files that do not say."""


@dataclass(frozen=True)
class Rule:
    part: str
    field: str
    fits: Callable[[Any, "Model"], bool]  # of a value as the JSON file has it
    why: str  # what is expected, and why


@dataclass(frozen=True)
class Model:
    """The configurations of a pipeline by part, with the defaults of their classes."""

    configs: dict[str, dict[str, Any]]

    @property
    def xl(self) -> bool:
        """Whether a U-Net has a second text encoder, as SDXL's."""
        return "text_encoder_2" in self.configs

    @property
    def text_width(self) -> int:
        return sum(
            config.get("hidden_size", CLIP_WIDTH)
            for part, config in self.configs.items()
            if part.startswith("text_encoder")
        )


def _none(value: Any, _: Model) -> bool:
    return value in (None, False)


def _clip(value: Any, _: Model) -> bool:
    return value in (None, "clip", "clip_text_model")


def _square(value: Any, _: Model) -> bool:
    sides = value if isinstance(value, list | tuple) else [value, value]
    return len(sides) == 2 and sides[0] == sides[1] and isinstance(sides[0], int) and sides[0] > 0


def _as_latents(value: Any, model: Model) -> bool:
    return bool(value == model.configs["vae"]["latent_channels"])


def _usual_blocks(value: Any, _: Model) -> bool:
    return all(name.removeprefix("CrossAttn") in ("DownBlock2D", "UpBlock2D") for name in value)


CLIP = "clip_text_model: the weights are read as CLIP's"
VAE_RULES = (
    Rule("vae", "latents_mean", _none, "null: latents are scaled by scaling_factor alone"),
    Rule("vae", "latents_std", _none, "null: latents are scaled by scaling_factor alone"),
    Rule(
        "vae",
        "scaling_factor",
        lambda value, _: isinstance(value, int | float) and value > 0,
        "a number above 0",
    ),
    Rule("vae", "in_channels", lambda value, _: value == 3, "3, RGB"),
    Rule("vae", "out_channels", lambda value, _: value == 3, "3, RGB"),
)
"""Honoured of the VAE: scaling_factor, shift_factor (drawing and encode_images), force_upcast (SDXL
in float16, as in diffusers), quant convolutions and the like (by the class)."""

CLIP_RULES = (
    Rule("text_encoder", "model_type", _clip, CLIP),
    Rule("text_encoder_2", "model_type", _clip, CLIP),
)
TIMESTEPS_RULE = Rule(
    "scheduler",
    "num_train_timesteps",
    lambda value, _: value == TIMESTEPS,
    f"{TIMESTEPS}: timesteps are counted on 0..{TIMESTEPS - 1} everywhere",
)
UNET_RULES = (
    *VAE_RULES,
    # The U-Net is called with latents, a timestep, the text, and for SDXL pooled text and sizes.
    Rule(
        "unet",
        "sample_size",
        _square,
        "a side in latent pixels, one number above 0: features, "
        "masks and the grounding module are square",
    ),
    Rule(
        "unet",
        "in_channels",
        _as_latents,
        "the VAE's latent_channels: an inpainting, depth or "
        "editing U-Net has more and wants a picture too; take the text-to-image model",
    ),
    Rule(
        "unet",
        "out_channels",
        _as_latents,
        "the VAE's latent_channels: a U-Net that also predicts a variance does not draw latents",
    ),
    Rule(
        "unet",
        "time_cond_proj_dim",
        _none,
        "null: a U-Net distilled to a guidance scale (LCM) "
        "wants it embedded and runs without guidance, of whose halves the features are made; "
        "take the model that it was distilled from",
    ),
    Rule("unet", "class_embed_type", _none, "null: no class label is given"),
    Rule("unet", "num_class_embeds", _none, "null: no class label is given"),
    Rule("unet", "encoder_hid_dim", _none, "null: the U-Net is given the text encoders' output"),
    Rule("unet", "encoder_hid_dim_type", _none, "null: no picture (IP-Adapter) is given"),
    Rule(
        "unet",
        "addition_embed_type",
        lambda value, model: value == ("text_time" if model.xl else None),
        "text_time for SDXL, null otherwise",
    ),
    Rule(
        "unet",
        "cross_attention_dim",
        lambda value, model: (
            set(value if isinstance(value, list | tuple) else [value]) == {model.text_width}
        ),
        "the width of the text encoders together",
    ),
    Rule(
        "unet",
        "projection_class_embeddings_input_dim",
        lambda value, model: (
            not model.xl
            or value
            == model.configs["text_encoder_2"].get("projection_dim", CLIP_WIDTH)
            + 6 * (model.configs["unet"]["addition_time_embed_dim"] or 0)
        ),
        "projection_dim of text_encoder_2 plus six times addition_time_embed_dim; the refiner "
        "takes five sizes, which are not given",
    ),
    Rule(
        "unet",
        "attention_type",
        lambda value, _: value == "default",
        "default: no boxes (GLIGEN) are given",
    ),
    Rule("unet", "cross_attention_norm", _none, "null: heat maps are read from the text as given"),
    Rule("unet", "dual_cross_attention", _none, "false: one attention to one text"),
    Rule(
        "unet",
        "only_cross_attention",
        lambda value, _: not (any(value) if isinstance(value, list | tuple) else value),
        "false: a block's first attention is to the picture itself",
    ),
    Rule(
        "unet",
        "down_block_types",
        _usual_blocks,
        "DownBlock2D and CrossAttnDownBlock2D, whose layers the features are taken from",
    ),
    Rule(
        "unet",
        "up_block_types",
        _usual_blocks,
        "UpBlock2D and CrossAttnUpBlock2D, whose layers the features are taken from",
    ),
    Rule(
        "unet",
        "mid_block_type",
        lambda value, _: value in (None, "UNetMidBlock2DCrossAttn", "UNetMidBlock2D"),
        "UNetMidBlock2DCrossAttn or null",
    ),
    Rule(
        "vae",
        "shift_factor",
        lambda value, _: not value,
        "null: Stable Diffusion's latents are "
        "scaled, not shifted, and its pipelines do not shift them back",
    ),
    # The scheduler's steps, spacing and offset are the sampler's own business and honoured by it;
    # clip_sample is off whatever the file says (schedulers.unclipped says why).
    *CLIP_RULES,
    Rule(
        "scheduler",
        "beta_schedule",
        lambda value, _: isinstance(value, str),
        "the noise schedule that a U-Net of Stable Diffusion was trained with: flow matching's "
        "and EDM's models have none, and another scheduler would make one up",
    ),
    TIMESTEPS_RULE,
    Rule(
        "scheduler",
        "prediction_type",
        lambda value, _: value in PREDICTIONS,
        f"one of {list(PREDICTIONS)}: evidence must know what the U-Net says",
    ),
    Rule(
        "scheduler",
        "rescale_betas_zero_snr",
        lambda value, model: (
            not value or model.configs["scheduler"].get("prediction_type", "epsilon") != "epsilon"
        ),
        "false for prediction_type epsilon: at the last timestep there is noise alone, and to "
        "know it says nothing of the picture (the division by 0 draws black)",
    ),
    Rule("scheduler", "thresholding", _none, "false: it is for pixels; latents are not in -1..1"),
)
"""force_zeros_for_empty_prompt is honoured (`tokens.encode_prompts`), use_attention_mask of the
text encoders too (diffusers' encode_prompt). The safety checker, the image encoder, the feature
extractor and SDXL's watermark are left out on purpose (`checkpoint.PIPELINES`). A clip_skip is no
field of any file: the U-Net is given the text's last hidden layer, in SDXL the last but one."""
