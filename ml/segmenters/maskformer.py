"""MaskFormer (transformers) on a classification backbone, small enough for minutes on a CPU.

Background is a class like any other (label 0), so that every counted pixel belongs to a mask.
Not here: the training loop (`training.py`), the loss (`mask_loss.py`).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    DetrConfig,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    ResNetConfig,
    ResNetForImageClassification,
)

from ml.params import SegmenterParams
from ml.segmenters.mask_loss import make_targets, mask_loss

WIDTH = 64  # channels of the feature pyramid, the mask features and the decoder
QUERIES = 16  # pictures hold at most three objects and a background
DECODER_LAYERS = 2
HEADS = 4
STAGES = ["stage1", "stage2", "stage3", "stage4"]


def build(
    backbone: Path, names: Sequence[str], params: SegmenterParams
) -> MaskFormerForInstanceSegmentation:
    """A fresh model over `names` (label order, background first) on a trained backbone.

    backbone: folder of a `ResNetForImageClassification`. Raises ValueError for another folder.
    """
    if not (Path(backbone) / "config.json").is_file():
        raise ValueError(f"no segmenter backbone in {backbone}: expected the folder of a "
                         "transformers ResNetForImageClassification (segmenter.backbone)")
    classifier = ResNetForImageClassification.from_pretrained(backbone)
    taps = {"out_features": STAGES, "out_indices": list(range(1, len(STAGES) + 1))}
    body = ResNetConfig.from_dict(classifier.config.to_dict() | taps)
    decoder = DetrConfig(
        d_model=WIDTH, decoder_layers=DECODER_LAYERS, encoder_layers=0, num_queries=QUERIES,
        decoder_attention_heads=HEADS, encoder_attention_heads=HEADS, decoder_ffn_dim=4 * WIDTH,
        dropout=0.0, attention_dropout=0.0, activation_dropout=0.0,
    )
    config = MaskFormerConfig(
        backbone_config=body, decoder_config=decoder, fpn_feature_size=WIDTH,
        mask_feature_size=WIDTH, use_auxiliary_loss=False,
        id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)},
        picture_scale=params.scale,
    )
    model = MaskFormerForInstanceSegmentation(config)
    weights = {name: value for name, value in classifier.resnet.state_dict().items()
               if not name.startswith("pooler.")}
    backbone_of(model).load_state_dict(weights)
    return model


def load(folder: Path) -> MaskFormerForInstanceSegmentation:
    """The model that `save_pretrained` left in a folder, in eval mode."""
    return MaskFormerForInstanceSegmentation.from_pretrained(folder).eval()


def backbone_of(model: MaskFormerForInstanceSegmentation) -> torch.nn.Module:
    """The part that came trained and learns slower."""
    return model.model.pixel_level_module.encoder


def loss(model: MaskFormerForInstanceSegmentation, pixels: Tensor, labels: Tensor) -> Tensor:
    """pixels: float32 (B,3,H,W) in 0..1, labels: uint8 (B,H,W), 255 ignored. A scalar."""
    class_logits, mask_logits = _logits(model, pixels, every_layer=True)
    return mask_loss(class_logits, mask_logits, make_targets(labels))


def label_scores(model: MaskFormerForInstanceSegmentation, pixels: Tensor) -> Tensor:
    """pixels: float32 (B,3,H,W) in 0..1. Returns (B,n+1,H,W) >= 0, the largest is the label.

    A label's score is the sum over queries of the probability that the query is of that class
    times that it covers the pixel (section 3.4 of the paper).
    """
    class_logits, mask_logits = _logits(model, pixels, every_layer=False)
    shares = class_logits[0].softmax(-1)[..., :-1]
    masks = functional.interpolate(mask_logits[0], pixels.shape[-2:], mode="bilinear").sigmoid()
    return torch.einsum("bqc,bqhw->bchw", shares, masks)


def _logits(
    model: MaskFormerForInstanceSegmentation, pixels: Tensor, *, every_layer: bool
) -> tuple[Tensor, Tensor]:
    """Class logits (L,B,Q,n+2) and mask logits (L,B,Q,h,w) of the last or of every decoder layer.

    The model's own auxiliary outputs start with the queries before the first layer, which have
    not met the picture yet; they are left out here, and a third of the loss's cost with them.
    """
    scale = model.config.picture_scale
    if scale != 1:
        pixels = functional.interpolate(pixels, scale_factor=scale, mode="bilinear")
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    body = model.model(pixels, output_hidden_states=every_layer)
    layers = [body.transformer_decoder_last_hidden_state]
    if every_layer:
        norm = model.model.transformer_module.decoder.layernorm
        inner = body.transformer_decoder_hidden_states[1:-1]
        layers = [norm(hidden) for hidden in inner] + layers
    hidden = torch.stack(layers)
    embeddings = model.mask_embedder(hidden)
    masks = torch.einsum("lbqc,bchw->lbqhw", embeddings, body.pixel_decoder_last_hidden_state)
    return model.class_predictor(hidden), masks
