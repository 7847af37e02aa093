"""MaskFormer (transformers) on a classification backbone: ResNet or Swin.

Its widths come from the parameters: minutes on a CPU at micro size, the paper's at full size.
Background is a class like any other (label 0), so that every counted pixel belongs to a mask.
Not here: the training loop (`training.py`), the loss (`mask_loss.py`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DetrConfig, MaskFormerConfig, MaskFormerForInstanceSegmentation
from transformers.core_model_loading import revert_weight_conversion

from ml.segmenters.backbones import finite_scores, load_backbone, load_saved, prepared
from ml.segmenters.mask_loss import loss_sizes, make_targets, mask_loss
from ml.settings.sections import SegmenterParams

BODIES = {"ResNetForImageClassification": "resnet.", "SwinForImageClassification": "swin."}
"""Classifiers that it can be built on -> prefix of the body among their published weights, whose
names transformers' MaskFormer still uses where its classifier has others."""
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def build(
    backbone: str | Path, names: Sequence[str], params: SegmenterParams
) -> MaskFormerForInstanceSegmentation:
    """A fresh model over `names` (label order, background first) on a trained backbone.

    Raises ValueError for a backbone that is no classifier out of BODIES.
    """
    classifier, pixels = load_backbone(backbone, params.backbone_revision, BODIES)
    taps = {"out_features": STAGES, "out_indices": list(range(1, len(STAGES) + 1))}
    settings = type(classifier.config).from_dict(classifier.config.to_dict() | taps)
    decoder = DetrConfig(
        d_model=params.width,
        decoder_layers=params.decoder_layers,
        encoder_layers=0,
        num_queries=params.queries,
        decoder_attention_heads=params.heads,
        encoder_attention_heads=params.heads,
        decoder_ffn_dim=params.feedforward,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
    )
    own: dict[str, Any] = {"picture_scale": params.scale, **pixels}  # beside transformers' fields
    config = MaskFormerConfig(
        **own,
        backbone_config=settings,
        decoder_config=decoder,
        fpn_feature_size=params.width,
        mask_feature_size=params.width,
        use_auxiliary_loss=False,
        cross_entropy_weight=params.class_weight,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    model = MaskFormerForInstanceSegmentation(config)
    prefix = BODIES[type(classifier).__name__]
    published = revert_weight_conversion(classifier, classifier.state_dict())
    weights = {
        name.removeprefix(prefix): value
        for name, value in published.items()
        if name.startswith(prefix) and not name.startswith(f"{prefix}pooler.")
    }
    body = getattr(backbone_of(model), "model", backbone_of(model))  # Swin's has fresh norms beside
    computed = {
        name: value
        for name, value in body.state_dict().items()
        if name.endswith("relative_position_index")
    }
    body.load_state_dict(computed | weights)
    return model


def load(folder: Path) -> MaskFormerForInstanceSegmentation:
    """The model that `save_pretrained` left in a folder, in eval mode."""
    return load_saved(MaskFormerForInstanceSegmentation, folder)


def backbone_of(model: MaskFormerForInstanceSegmentation) -> torch.nn.Module:
    """The pretrained part, which learns more slowly."""
    encoder: torch.nn.Module = model.model.pixel_level_module.encoder
    return encoder


def sizes(model: MaskFormerForInstanceSegmentation, labels: Tensor) -> Tensor:
    """What the loss's terms divide by, float64 (2,): see `loss_sizes`. labels: uint8 (B,H,W)."""
    decoder: Any = model.config.decoder_config
    return loss_sizes(labels, decoder.num_queries)


def loss(
    model: MaskFormerForInstanceSegmentation,
    pixels: Tensor,
    labels: Tensor,
    totals: Tensor | None = None,
) -> Tensor:
    """pixels: float32 (B,3,H,W) in 0..1, labels: uint8 (B,H,W), 255 ignored. A scalar.

    totals: `sizes` of the whole batch when this is a part of it; the parts' losses add up.
    """
    class_logits, mask_logits = _logits(model, pixels, every_layer=True)
    share = None if totals is None else (sizes(model, labels) / totals.clamp(min=1e-6)).float()
    weight = float(model.config.cross_entropy_weight)
    return mask_loss(class_logits, mask_logits, make_targets(labels), share, weight)


def label_scores(model: MaskFormerForInstanceSegmentation, pixels: Tensor) -> Tensor:
    """pixels: float32 (B,3,H,W) in 0..1. Returns (B,n+1,H,W) >= 0, the largest is the label.

    A label's score is the sum over queries of the probability that the query is of that class
    times that it covers the pixel (section 3.4 of the paper).
    """
    class_logits, mask_logits = _logits(model, pixels, every_layer=False)
    shares = class_logits[0].softmax(-1)[..., :-1]
    masks = functional.interpolate(mask_logits[0], pixels.shape[-2:], mode="bilinear").sigmoid()
    return finite_scores(torch.einsum("bqc,bqhw->bchw", shares, masks))


def _logits(
    model: MaskFormerForInstanceSegmentation, pixels: Tensor, *, every_layer: bool
) -> tuple[Tensor, Tensor]:
    """Class logits (L,B,Q,n+2) and mask logits (L,B,Q,h,w) of the last or of every decoder layer.

    The model's own auxiliary outputs start with the queries before the first layer, which have
    not met the picture yet; they are left out here, and a third of the loss's cost with them.
    """
    body = model.model(prepared(model.config, pixels), output_hidden_states=every_layer)
    layers = [body.transformer_decoder_last_hidden_state]
    if every_layer:
        norm = model.model.transformer_module.decoder.layernorm
        inner = body.transformer_decoder_hidden_states[1:-1]
        layers = [norm(hidden) for hidden in inner] + layers
    hidden = torch.stack(layers)
    embeddings = model.mask_embedder(hidden)
    masks = torch.einsum("lbqc,bchw->lbqhw", embeddings, body.pixel_decoder_last_hidden_state)
    return model.class_predictor(hidden), masks
