"""SegFormer (transformers): an all-MLP head on a MiT backbone, every pixel classified by itself.

The second architecture, trained by the same loop as MaskFormer. Not here: the training loop
(`training.py`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from ml.images.overlays import IGNORED
from ml.segmenters.backbones import finite_scores, load_backbone, load_saved, prepared
from ml.settings.sections import SegmenterParams


def build(
    backbone: str | Path, names: Sequence[str], params: SegmenterParams
) -> SegformerForSemanticSegmentation:
    """A fresh head over `names` (label order, background first) on a trained MiT backbone.

    Raises ValueError for a backbone that is no `SegformerForImageClassification`.
    """
    classifier, pixels = load_backbone(
        backbone, params.backbone_revision, ["SegformerForImageClassification"]
    )
    given = (
        classifier.config.to_dict()
        | pixels
        | {
            "id2label": dict(enumerate(names)),
            "label2id": {name: i for i, name in enumerate(names)},
            "decoder_hidden_size": params.width,
            "picture_scale": params.scale,
        }
    )
    model = SegformerForSemanticSegmentation(SegformerConfig.from_dict(given))
    body = cast(torch.nn.Module, classifier.segformer)
    backbone_of(model).load_state_dict(body.state_dict())
    return model


def load(folder: Path) -> SegformerForSemanticSegmentation:
    """The model that `save_pretrained` left in a folder, in eval mode."""
    return load_saved(SegformerForSemanticSegmentation, folder)


def backbone_of(model: SegformerForSemanticSegmentation) -> torch.nn.Module:
    """The pretrained part, which learns more slowly."""
    return model.segformer


def sizes(model: SegformerForSemanticSegmentation, labels: Tensor) -> Tensor:
    """What the loss divides by: float64 (1,), pixels that count. labels: uint8 (B,H,W)."""
    return (labels != IGNORED).sum().double()[None]


def loss(
    model: SegformerForSemanticSegmentation,
    pixels: Tensor,
    labels: Tensor,
    totals: Tensor | None = None,
) -> Tensor:
    """Cross-entropy over the pixels that count: a scalar.

    pixels: float32 (B,3,H,W) in 0..1, labels: uint8 (B,H,W), 255 ignored. totals: `sizes` of the
    whole batch when this is a part of it.
    """
    totals = sizes(model, labels) if totals is None else totals
    logits = _logits(model, pixels).float()
    entropy = functional.cross_entropy(logits, labels.long(), ignore_index=IGNORED, reduction="sum")
    return entropy / totals[0].clamp(min=1).float()


def label_scores(model: SegformerForSemanticSegmentation, pixels: Tensor) -> Tensor:
    """pixels: float32 (B,3,H,W) in 0..1. Returns (B,n+1,H,W) >= 0, the largest is the label."""
    return finite_scores(_logits(model, pixels).softmax(1))


def _logits(model: SegformerForSemanticSegmentation, pixels: Tensor) -> Tensor:
    """(B,n+1,H,W), enlarged from a quarter of the picture's size."""
    logits = model(prepared(model.config, pixels)).logits
    return functional.interpolate(logits, pixels.shape[-2:], mode="bilinear")
