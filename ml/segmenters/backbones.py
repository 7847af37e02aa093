"""Backbones: image classifiers of transformers that never saw a mask, with their normalisation.

A backbone whose weights saw masks of VOC, COCO or ADE would know the unseen classes' outlines, and
the benchmark would measure that. Not here: what is built on a backbone.
"""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin

from ml.compute.weights import check_finite, load_whole
from ml.settings.revisions import refuse_revision
from ml.store.reading import configured

HEAD = ("classifier.",)
"""Of a classifier: dropped on purpose, so that it may be of other classes, or missing."""
Model = TypeVar("Model", bound=PreTrainedModel)


class PixelStatistics(TypedDict):
    """Of pixels in 0..1, by channel; None where a backbone takes them as they are."""

    pixel_mean: list[float] | None
    pixel_std: list[float] | None


def load_backbone(
    name: str | Path, revision: str | None, fitting: Collection[str]
) -> tuple[PreTrainedModel, PixelStatistics]:
    """An image classifier from a folder or hub id, float32, and settings for the model's config.

    fitting: class names in transformers that the architecture can be built on. The settings are
    `pixel_mean` and `pixel_std` of the backbone's preprocessor_config.json, None in a folder that
    has no such file (its backbone then takes pixels in 0..1 as they are). Only safetensors are
    read, and all weights but the classifier's head must be there. Raises ValueError, saying what
    to do, for anything else.
    """
    name = str(name)
    refuse_revision("segmenter.backbone_revision", revision, name)
    where = f"segmenter.backbone {name!r}" + (f" at revision {revision!r}" if revision else "")
    expected = f"expected a folder or hub id of an image classifier ({', '.join(sorted(fitting))})"
    try:
        with configured(name):
            config = AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{where}: {expected} in the form of transformers, got {error}. Check the name and "
            "segmenter.backbone_revision; without a network (or with HF_HUB_OFFLINE=1) give a "
            "folder; a gated model needs `hf auth login` first"
        ) from error
    found = config.architectures or ["no architecture"]
    if found[0] not in fitting:
        raise ValueError(
            f"{where} is {', '.join(found)}: {expected}. Weights that saw masks or boxes know the "
            "unseen classes, which the benchmark would then count as found without labels"
        )
    try:
        # The class that is loaded through is a factory of models: typed as what it makes.
        classifier: PreTrainedModel = load_whole(
            cast(type[PreTrainedModel], AutoModelForImageClassification),
            where,
            name,
            revision=revision,
            config=config,
            dtype=torch.float32,
            dropped=HEAD,
        )
    except OSError as error:
        raise ValueError(
            f"{where} has no model.safetensors, and pickled weights are not loaded: choose a "
            "revision that has it, or save the model again with save_pretrained into a folder and "
            f"name that; got {error}"
        ) from error
    if Path(name).is_dir():  # where it lies says nothing about the model, and would be saved
        classifier.config.name_or_path = ""
    return classifier, _normalisation(name, revision, where)


def _normalisation(name: str, revision: str | None, where: str) -> PixelStatistics:
    try:
        given, _ = ImageProcessingMixin.get_image_processor_dict(name, revision=revision)
    except OSError as error:
        if not Path(name).is_dir():
            raise ValueError(
                f"{where}: no preprocessor_config.json, so nobody knows how its "
                f"pixels were normalised; got {error}"
            ) from error
        given = {}
    return normalisation(given, where)


def normalisation(given: Mapping[str, Any], where: str) -> PixelStatistics:
    """`pixel_mean` and `pixel_std`, for pixels in 0..1, out of a preprocessor_config.json.

    Raises ValueError for one that asks for what is not supported here.
    """
    mean, std = (
        given.get(name) if given.get("do_normalize", True) else None
        for name in ("image_mean", "image_std")
    )
    for name, values in (("image_mean", mean), ("image_std", std)):
        if not (values is None or isinstance(values, list) and all(map(_is_number, values))):
            raise ValueError(
                f"{where}: its preprocessor_config.json has {name} {values!r:.80}: expected three "
                "numbers, or null"
            )
    factor = given.get("rescale_factor", 1 / 255)
    if not _is_number(factor) or factor < 1e-9:
        raise ValueError(
            f"{where}: its preprocessor_config.json has rescale_factor {factor!r:.80}: expected a "
            "number above 0"
        )
    if given.get("do_flip_channel_order"):
        raise ValueError(
            f"{where}: its preprocessor_config.json has do_flip_channel_order: "
            "expected a backbone that takes RGB"
        )
    # What one step of 0..255 becomes there, against 1 / 255 here.
    scale = 255 * factor if given.get("do_rescale", True) else 255
    if not math.isclose(scale, 1):
        mean, std = (
            [value / scale for value in values] for values in (mean or [0.0] * 3, std or [1.0] * 3)
        )
    for name, values in (("image_mean", mean), ("image_std", std)):
        if (mean is None) != (std is None) or values is not None and len(values) != 3:
            raise ValueError(
                f"{where}: its preprocessor_config.json has {name} "
                f"{given.get(name)!r}: expected three numbers each of image_mean and "
                "image_std"
            )
    if std is not None and min(std) <= 0:
        raise ValueError(
            f"{where}: its preprocessor_config.json has image_std {std}: expected numbers above 0"
        )
    return {"pixel_mean": mean, "pixel_std": std}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def load_saved(kind: type[Model], folder: Path) -> Model:
    """A segmenter that `save_pretrained` left in a folder, in eval mode.

    Raises ValueError for weights that are missing, damaged or not all its own, and for a model
    that was not built here, of whose pixels nobody knows how to prepare them.
    """
    try:
        model: nn.Module = load_whole(kind, f"the segmenter in {folder}", folder)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"the segmenter in {folder} is damaged or lacks model.safetensors "
            f"({error}): run the stage segmenter again"
        ) from error
    if not hasattr(model.config, "picture_scale"):
        raise ValueError(
            f"no segmenter of this project in {folder}: expected picture_scale in its config.json, "
            f"got a plain {kind.__name__}; open that with transformers, or give the folder that "
            "the stage 'segmenter' leaves"
        )
    return cast(Model, model.eval())


def finite_scores(scores: Tensor) -> Tensor:
    """A segmenter's scores as they are. Raises NotFinite: the largest of NaN is background."""
    check_finite(
        scores,
        "the segmenter's scores",
        "train it again with segmenter.precision bfloat16 or float32, or bring it again",
    )
    return scores


def prepared(config: Any, pixels: Tensor) -> Tensor:
    """Pixels in 0..1 as the backbone wants them: enlarged, normalised, channels_last.

    pixels: float32 (B,3,H,W). config: a segmenter's, with fields of our own beside
    those of transformers; its `picture_scale` multiplies H and W.
    """
    if config.picture_scale != 1:
        pixels = functional.interpolate(pixels, scale_factor=config.picture_scale, mode="bilinear")
    if getattr(config, "pixel_mean", None):
        mean, std = (
            torch.tensor(values, device=pixels.device)[:, None, None]
            for values in (config.pixel_mean, config.pixel_std)
        )
        pixels = (pixels - mean) / std
    return pixels.contiguous(memory_format=torch.channels_last)
