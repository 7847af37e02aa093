"""The Mask R-CNN of this project: built from its configuration, saved to and loaded from a folder.

A folder holds config.json (`MaskRCNNConfig`) and model.safetensors.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import detection
from torchvision.models.detection import faster_rcnn, mask_rcnn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from transformers import ResNetBackbone, ResNetConfig

from ml.compute.weights import fill
from ml.detectors.maskrcnn_config import MaskRCNNConfig, read_config
from ml.detectors.pasting import SubpixelTransform
from ml.detectors.weights import load_weights
from ml.store.reading import configured


class ResNetFPN(nn.Module):
    """Pictures (B,3,H,W) -> four maps of `fpn_channels` at strides 4 to 32, keys "0" to "3"."""

    def __init__(self, config: MaskRCNNConfig) -> None:
        super().__init__()
        taps: dict[str, Any] = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
        self.body = ResNetBackbone(
            ResNetConfig(
                embedding_size=config.embedding_size,
                hidden_sizes=list(config.hidden_sizes),
                depths=list(config.depths),
                layer_type=config.layer_type,
                **taps,
            )
        )
        self.fpn = FeaturePyramidNetwork(list(config.hidden_sizes), config.fpn_channels)
        self.out_channels = config.fpn_channels

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.body(pixels).feature_maps
        levels: dict[str, torch.Tensor] = self.fpn(
            {str(level): map_ for level, map_ in enumerate(maps)}
        )
        return levels


def build_maskrcnn(config: MaskRCNNConfig) -> detection.MaskRCNN:
    """The network with random weights, in training mode."""
    channels, width, head = config.fpn_channels, config.box_head, config.mask_head
    anchors = AnchorGenerator(
        sizes=tuple((size,) for size in config.anchor_sizes),
        aspect_ratios=((0.5, 1.0, 2.0),) * len(config.anchor_sizes),
    )
    model = detection.MaskRCNN(
        ResNetFPN(config),
        min_size=config.image_size[0],
        max_size=config.image_size[1],
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=2 * config.proposals,
        rpn_pre_nms_top_n_test=2 * config.proposals,
        rpn_post_nms_top_n_train=config.proposals,
        rpn_post_nms_top_n_test=config.proposals,
        rpn_batch_size_per_image=64,
        # One sample a cell, not the usual four: cells are no wider than two feature pixels
        # (docs/ablations.md#the-drawn-worlds-mask-r-cnn).
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=1),
        box_head=faster_rcnn.TwoMLPHead(channels * 7 * 7, width),
        box_predictor=faster_rcnn.FastRCNNPredictor(width, len(config.classes) + 1),
        # A scene's three objects and ten of the background: more only take time
        # (docs/ablations.md#the-drawn-worlds-mask-r-cnn).
        box_batch_size_per_image=16,
        box_positive_fraction=0.375,
        box_detections_per_img=config.detections,
        mask_roi_pool=MultiScaleRoIAlign(["0"], output_size=config.mask_pool, sampling_ratio=1),
        mask_head=mask_rcnn.MaskRCNNHeads(channels, head, dilation=1),
        mask_predictor=mask_rcnn.MaskRCNNPredictor(head[-1], head[-1], len(config.classes) + 1),
    )
    model.transform = SubpixelTransform(
        *config.image_size, image_mean=list(config.mean), image_std=list(config.std)
    )
    return model


def save_maskrcnn(model: detection.MaskRCNN, config: MaskRCNNConfig, folder: Path) -> None:
    """Writes config.json and model.safetensors; weights as float16, which halves the file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
    weights = {
        name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def load_maskrcnn(folder: Path) -> tuple[detection.MaskRCNN, MaskRCNNConfig]:
    """A checkpoint folder as (network in float32 and eval mode, its configuration)."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder}: expected config.json and model.safetensors of a Mask R-CNN. Give a folder "
            "written by ml.foundation.train_detector, or 'coco' for torchvision's COCO weights."
        )
    config = read_config(folder / "config.json")
    with configured(str(folder)):
        model = build_maskrcnn(config)
    fill(model, load_weights(folder / "model.safetensors").tensors, str(folder))
    return model.eval(), config
