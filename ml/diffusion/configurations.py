"""A text-to-image model's configuration files, checked against the rules of its fields.

Not here: the rules themselves (`ml.diffusion.fields`, `ml.diffusion.flow_fields`).
"""

import inspect
from pathlib import Path
from typing import Any

import diffusers
from diffusers.models.modeling_utils import ModelMixin

from ml.diffusion.backbones.kinds import KINDS, Kind, tokenizer_of
from ml.diffusion.fields import UNET_RULES, Model, Rule
from ml.diffusion.flow_fields import FLUX_RULES, SD3_RULES
from ml.store.reading import read_object

INDEX = "model_index.json"
RULES: dict[str, tuple[Rule, ...]] = {
    "StableDiffusionPipeline": UNET_RULES,
    "StableDiffusionXLPipeline": UNET_RULES,
    "StableDiffusion3Pipeline": SD3_RULES,
    "FluxPipeline": FLUX_RULES,
}
NOISE = {
    "StableDiffusionPipeline": ("beta_schedule", "beta_start", "beta_end"),
    "StableDiffusionXLPipeline": ("beta_schedule", "beta_start", "beta_end"),
    "StableDiffusion3Pipeline": ("shift",),
    "FluxPipeline": ("shift",),
}
"""Fields that a scheduler's file must have: the class's defaults are those of another model."""
TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model")


def check_folder(folder: Path) -> None:
    """Raises ValueError, naming file, field and value, for a configuration that is refused."""
    index = read_object(folder / INDEX)
    name = index["_class_name"]
    kind = KINDS[name]
    parts = parts_in(kind, index)
    for part in parts:
        expected, found = kind.networks[part].__name__, class_of(index, part)
        if found != expected:
            raise ValueError(
                f"{folder / INDEX}: {part} is of class {found!r}: expected {expected}; change "
                "diffusion.model in the profile"
            )
    for part in [tokenizer_of(part) for part in kind.text if part in parts]:
        if not any((folder / part / file).is_file() for file in TOKENIZERS):
            raise ValueError(
                f"{folder / part} is missing or holds no tokenizer.json or vocab.json:"
                " texts could not be read as the model does; bring the model again"
            )
    given = {
        part: read_object(folder / part / file)
        for part, file in kind.configs.items()
        if part in (*parts, "scheduler")
    }
    given["scheduler"]["_class_name"] = class_of(index, "scheduler") or ""
    check_configs(given, name, str(folder))


def parts_in(kind: Kind, index: dict[str, Any]) -> list[str]:
    """The parts with weights that a model_index.json names, or should."""
    return [part for part in kind.networks if part not in kind.optional or class_of(index, part)]


def class_of(index: dict[str, Any], part: str) -> str | None:
    """The class that a model_index.json names for a part; None where there is none."""
    named = index.get(part)
    return named[1] if isinstance(named, list) and len(named) == 2 else None


def are_whole(folder: Path) -> bool:
    """Whether each part of the model in a folder has its configuration."""
    index = read_object(folder / INDEX)
    kind = KINDS.get(index.get("_class_name", ""))
    return kind is not None and all(
        (folder / part / kind.configs[part]).is_file()
        for part in [*parts_in(kind, index), "scheduler"]
    )


def check_configs(given: dict[str, dict[str, Any]], name: str, folder: str = "the model") -> None:
    """`check_folder` of configurations by part, as they stand in the files, of a model whose
    pipeline's class has this name."""
    networks = {
        part: network
        for part, network in KINDS[name].networks.items()
        if issubclass(network, ModelMixin)  # diffusers' own; transformers' have classes of fields
    }
    kinds: dict[str, type] = {
        **networks,
        "scheduler": getattr(diffusers, given["scheduler"]["_class_name"], object),
    }
    known = {part: _arguments(kind) for part, kind in kinds.items()}
    for part, network in networks.items():
        _check_known(f"{folder}/{part}/config.json", network.__name__, given[part], known[part])
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
        }
    )
    for rule in (rule for rule in RULES[name] if rule.part in model.configs):
        value = model.configs[rule.part].get(rule.field)
        if not rule.fits(value, model):
            raise ValueError(
                f"{folder}/{rule.part}/{KINDS[name].configs[rule.part]}: {rule.field} is {value!r}"
                f": expected {rule.why}"
            )
    if silent := [field for field in NOISE[name] if field not in given["scheduler"]]:
        raise ValueError(
            f"{folder}/scheduler/scheduler_config.json does not say {silent}: "
            "expected the noise schedule that the denoiser was trained with; bring the "
            "file again"
        )


def _check_known(file: str, network: str, given: dict[str, Any], known: dict[str, object]) -> None:
    """Raises ValueError for a field that diffusers' class of the network does not know, or a switch
    that is neither on nor off."""
    strange = {
        name: value
        for name, value in given.items()
        if not name.startswith("_") and name not in known and value not in (None, False)
    }
    if strange:
        raise ValueError(
            f"{file} has {strange}, which {network} does not know: expected a part of a "
            "text-to-image model without additions; take the model that it was made from"
        )
    for name, default in known.items():
        value = given.get(name, default)
        if isinstance(default, bool) and not isinstance(
            value, bool | None | list | tuple
        ):  # one a block, in some fields
            raise ValueError(f"{file}: {name} is {value!r}: expected true or false")


def _arguments(kind: type) -> dict[str, object]:
    """The arguments that a class takes from its configuration, with their defaults."""
    own = inspect.signature(kind.__init__)  # type: ignore[misc]  # of this very class
    return {
        name: None if parameter.default is parameter.empty else parameter.default
        for name, parameter in own.parameters.items()
    }
