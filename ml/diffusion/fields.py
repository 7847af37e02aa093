"""What a text-to-image model's configuration may say, field by field: honoured or refused.

The parts run as diffusers' and transformers' own classes, which honour every argument that they
have. Refused is what needs more than the passes here give (pictures are drawn by diffusers'
pipeline; features, evidence and inversion call the U-Net and the VAE themselves), and what no class
here knows.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diffusers
from diffusers import AutoencoderKL, UNet2DConditionModel

from ml.diffusion.schedulers import PREDICTIONS, TIMESTEPS
from ml.store.reading import read_object

INDEX = "model_index.json"
XL = "StableDiffusionXLPipeline"
CLASSES = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}
"""The classes of the parts that have weights; another one computes something else."""

CONFIGS = {
    "unet": "config.json",
    "vae": "config.json",
    "text_encoder": "config.json",
    "text_encoder_2": "config.json",
    "scheduler": "scheduler_config.json",
}
NETWORKS = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
NOISE = ("beta_schedule", "beta_start", "beta_end")
"""What a scheduler's file must say: the class's own defaults are another model's."""
CLIP_WIDTH = 512
"""CLIPTextConfig's default of hidden_size and projection_dim, for files that do not say."""


@dataclass(frozen=True)
class Rule:
    part: str
    field: str
    fits: Callable[[object, "Model"], bool]
    why: str  # what is expected, and why


@dataclass(frozen=True)
class Model:
    """The configurations of a pipeline by part, with the defaults of their classes."""

    configs: dict[str, dict]
    xl: bool

    @property
    def text_width(self) -> int:
        return sum(
            config.get("hidden_size", CLIP_WIDTH)
            for part, config in self.configs.items()
            if part.startswith("text_encoder")
        )


def _none(value, _) -> bool:
    return value in (None, False)


def _clip(value, _) -> bool:
    return value in (None, "clip", "clip_text_model")


def _square(value, _) -> bool:
    sides = value if isinstance(value, list | tuple) else [value, value]
    return len(sides) == 2 and sides[0] == sides[1] and isinstance(sides[0], int) and sides[0] > 0


def _as_latents(value, model: Model) -> bool:
    return value == model.configs["vae"]["latent_channels"]


def _usual_blocks(value, _) -> bool:
    return all(name.removeprefix("CrossAttn") in ("DownBlock2D", "UpBlock2D") for name in value)


RULES = (
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
    Rule("unet", "encoder_hid_dim", _none, "null: the U-Net is told the text encoders' output"),
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
        "projection_dim of text_encoder_2 plus six times addition_time_embed_dim; the refiner is "
        "told five sizes, which are not given",
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
    # Honoured: scaling_factor (drawing and encode_images), force_upcast (SDXL in float16, as in
    # diffusers), quant convolutions and the like (by the class).
    Rule(
        "vae",
        "shift_factor",
        lambda value, _: not value,
        "null: Stable Diffusion's latents are "
        "scaled, not shifted, and its pipelines do not shift them back",
    ),
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
    # The scheduler's steps, spacing and offset are the sampler's own business and honoured by it;
    # clip_sample is off whatever the file says (schedulers.unclipped says why).
    Rule("text_encoder", "model_type", _clip, "clip_text_model: the weights are read as CLIP's"),
    Rule("text_encoder_2", "model_type", _clip, "clip_text_model: the weights are read as CLIP's"),
    Rule(
        "scheduler",
        "beta_schedule",
        lambda value, _: isinstance(value, str),
        "the noise schedule that a U-Net of Stable Diffusion was trained with: flow matching's "
        "and EDM's models have none, and another scheduler would make one up",
    ),
    Rule(
        "scheduler",
        "num_train_timesteps",
        lambda value, _: value == TIMESTEPS,
        f"{TIMESTEPS}: timesteps are counted on 0..{TIMESTEPS - 1} everywhere",
    ),
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
field of any file: the text's last hidden layer is told, SDXL's last but one."""


def check_folder(folder: Path) -> None:
    """Raises ValueError, naming file, field and value, for a configuration that is refused."""
    index = read_object(folder / INDEX)
    xl = index.get("_class_name") == XL
    for part, kinds in CLASSES.items():
        if part == "text_encoder_2" and not xl:
            continue
        kind = class_of(index, part)
        if kind not in kinds:
            raise ValueError(
                f"{folder / INDEX}: {part} is of class {kind!r}: expected "
                f"{' or '.join(kinds)}; change diffusion.model in the profile"
            )
    for part in ("tokenizer", *(["tokenizer_2"] if xl else [])):
        if not any((folder / part / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            raise ValueError(
                f"{folder / part} is missing or holds no tokenizer.json or vocab.json:"
                " texts could not be read as the model does; bring the model again"
            )
    parts = [part for part in CONFIGS if part != "text_encoder_2" or xl]
    given = {part: read_object(folder / part / CONFIGS[part]) for part in parts}
    given["scheduler"]["_class_name"] = class_of(index, "scheduler") or ""
    check_configs(given, xl, str(folder))


def class_of(index: dict, part: str) -> str | None:
    """The class that a model_index.json names for a part; None where there is none."""
    named = index.get(part)
    return named[1] if isinstance(named, list) and len(named) == 2 else None


def are_whole(folder: Path) -> bool:
    """Whether each part of the model in a folder has its configuration."""
    return all(
        (folder / part / CONFIGS[part]).is_file()
        for part in CONFIGS
        if part != "text_encoder_2" or (folder / part).is_dir()
    )


def check_configs(given: dict[str, dict], xl: bool, folder: str = "the model") -> None:
    """The same of configurations by part, as they stand in the files."""
    kinds = NETWORKS | {"scheduler": getattr(diffusers, given["scheduler"]["_class_name"], object)}
    known = {part: _arguments(kind) for part, kind in kinds.items()}
    for part in NETWORKS:
        strange = {
            name: value
            for name, value in given[part].items()
            if not name.startswith("_") and name not in known[part] and value not in (None, False)
        }
        if strange:
            raise ValueError(
                f"{folder}/{part}/config.json has {strange}, which "
                f"{NETWORKS[part].__name__} does not know: expected a part of Stable "
                "Diffusion without additions; take the model that it was made from"
            )
        for name, default in known[part].items():
            value = given[part].get(name, default)
            if isinstance(default, bool) and not isinstance(
                value, bool | None | list | tuple
            ):  # one a block, in some fields
                raise ValueError(
                    f"{folder}/{part}/config.json: {name} is {value!r}: expected true or false"
                )
    # A text encoder may come with the configuration of the whole of CLIP; its own is within.
    used = given | {
        "scheduler": {
            name: value for name, value in given["scheduler"].items() if name in known["scheduler"]
        }
    }  # fields of another class
    model = Model(
        {
            part: known.get(part, {}) | config | (config.get("text_config") or {})
            for part, config in used.items()
        },
        xl,
    )
    for rule in (rule for rule in RULES if rule.part in model.configs):
        value = model.configs[rule.part].get(rule.field)
        if not rule.fits(value, model):
            raise ValueError(
                f"{folder}/{rule.part}/{CONFIGS[rule.part]}: {rule.field} is {value!r}"
                f": expected {rule.why}"
            )
    if silent := [name for name in NOISE if name not in given["scheduler"]]:
        raise ValueError(
            f"{folder}/scheduler/{CONFIGS['scheduler']} does not say {silent}: "
            "expected the noise schedule that the U-Net was trained with; bring the "
            "file again"
        )


def _arguments(kind: type) -> dict[str, object]:
    """What a class takes from its configuration, with what it does without."""
    return {
        name: None if parameter.default is parameter.empty else parameter.default
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
    }
