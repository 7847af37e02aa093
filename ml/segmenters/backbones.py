"""Backbones: image classifiers of transformers that never saw a mask, with their normalisation.

A backbone whose weights saw masks of VOC, COCO or ADE would know the unseen classes' outlines, and
the benchmark would measure that. Not here: what is built on a backbone.
"""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel
from transformers.image_processing_base import ImageProcessingMixin


def load_backbone(
    name: str | Path, revision: str | None, fitting: Collection[str]
) -> tuple[PreTrainedModel, dict]:
    """An image classifier from a folder or hub id, float32, and settings for the model's config.

    fitting: class names in transformers that the architecture can be built on. The settings are
    `pixel_mean` and `pixel_std` of the backbone's preprocessor_config.json, None in a folder that
    has no such file (its backbone then takes pixels in 0..1 as they are). Only safetensors are
    read. Raises ValueError, saying what to do, for anything else.
    """
    name = str(name)
    where = f"segmenter.backbone {name!r}" + (f" at revision {revision!r}" if revision else "")
    expected = f"expected a folder or hub id of an image classifier ({', '.join(sorted(fitting))})"
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{where}: {expected} in the form of transformers, got {error}. Check the name and "
            "segmenter.backbone_revision; without a network (or with HF_HUB_OFFLINE=1) give a "
            "folder; a gated model needs `hf auth login` first") from error
    found = config.architectures or ["no architecture"]
    if found[0] not in fitting:
        raise ValueError(
            f"{where} is {', '.join(found)}: {expected}. Weights that saw masks or boxes know the "
            "unseen classes, which the benchmark would then count as found without labels")
    try:
        classifier = AutoModelForImageClassification.from_pretrained(
            name, revision=revision, config=config, use_safetensors=True, dtype=torch.float32)
    except OSError as error:
        raise ValueError(
            f"{where} has no model.safetensors, and pickled weights are not loaded: choose a "
            "revision that has it, or save the model again with save_pretrained into a folder and "
            f"name that; got {error}") from error
    return classifier, _normalisation(name, revision, where)


def _normalisation(name: str, revision: str | None, where: str) -> dict:
    try:
        said, _ = ImageProcessingMixin.get_image_processor_dict(name, revision=revision)
    except OSError as error:
        if not Path(name).is_dir():
            raise ValueError(f"{where}: no preprocessor_config.json, so nobody knows how its "
                             f"pixels were normalised; got {error}") from error
        said = {}
    used = said.get("do_normalize", True)
    return {"pixel_mean": said.get("image_mean") if used else None,
            "pixel_std": said.get("image_std") if used else None}


def prepared(config, pixels: Tensor) -> Tensor:
    """Pixels in 0..1 as the backbone wants them: enlarged, normalised, channels_last.

    pixels: float32 (B,3,H,W). config: a segmenter's; its `picture_scale` multiplies H and W.
    """
    if config.picture_scale != 1:
        pixels = functional.interpolate(pixels, scale_factor=config.picture_scale, mode="bilinear")
    if getattr(config, "pixel_mean", None):
        mean, std = (torch.tensor(values, device=pixels.device)[:, None, None]
                     for values in (config.pixel_mean, config.pixel_std))
        pixels = (pixels - mean) / std
    return pixels.contiguous(memory_format=torch.channels_last)
