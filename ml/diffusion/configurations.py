"""A text-to-image model's configuration files, checked against the rules of its fields.

Not here: the rules themselves (`ml.diffusion.fields`).
"""

import inspect
from pathlib import Path
from typing import Any

import diffusers
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from ml.diffusion.fields import CONFIGS, RULES, Model
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
NETWORKS: dict[str, type] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
NOISE = ("beta_schedule", "beta_start", "beta_end")
"""Fields that a scheduler's file must have: the class's defaults are those of another model."""


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


def class_of(index: dict[str, Any], part: str) -> str | None:
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


def check_configs(given: dict[str, dict[str, Any]], xl: bool, folder: str = "the model") -> None:
    """`check_folder` of configurations by part, as they stand in the files."""
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
    """The arguments that a class takes from its configuration, with their defaults."""
    own = inspect.signature(kind.__init__)  # type: ignore[misc]  # of this very class
    return {
        name: None if parameter.default is parameter.empty else parameter.default
        for name, parameter in own.parameters.items()
    }
