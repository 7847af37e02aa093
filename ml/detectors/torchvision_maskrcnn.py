"""torchvision's Mask R-CNN: COCO weights (path "coco"), or a checkpoint folder of this project.

A folder holds config.json (`MaskRCNNConfig`) and model.safetensors. The micro checkpoint and a
full-size one are built by the same `build_maskrcnn`; only the numbers in config.json differ.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from huggingface_hub import is_offline_mode
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from torchvision.models import detection
from torchvision.models.detection import faster_rcnn, mask_rcnn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from transformers import ResNetBackbone, ResNetConfig

from ml.compute.weights import fill
from ml.detectors.base import Detector
from ml.detectors.weights import load_weights
from ml.store.reading import configured, read_object

COCO = detection.MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1
PASTED_AT_ONCE = 16
"""Masks put onto the picture in one step: 100 of 1024x1024 pixels at once would take 1.6 GB."""


@dataclass(frozen=True)
class MaskRCNNConfig:
    """Everything that fixes the network. The defaults are the micro size; sizes are in pixels of
    the enlarged picture."""

    classes: tuple[str, ...]
    """Label names; class 0 of the network is the background and is not among them."""
    hidden_sizes: tuple[int, ...] = (32, 64, 96, 128)
    """Channels of the ResNet's four stages, at strides 4, 8, 16 and 32."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Residual layers of each stage."""
    embedding_size: int = 32
    layer_type: str = "basic"
    """"basic" or "bottleneck" (ResNet-50 is bottleneck, depths 3/4/6/3, sizes 256 to 2048)."""
    image_size: tuple[int, int] = (128, 256)
    """The shorter side is scaled to the first, unless the longer side would pass the second."""
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Pixels in 0..1 go in as they are: the backbone's first BatchNorm centres them."""
    anchor_sizes: tuple[int, ...] = (24, 44, 68, 104)
    """Anchor side at each FPN level, with aspect ratios 1:2, 1:1 and 2:1."""
    fpn_channels: int = 48
    box_head: int = 128
    """Width of the two fully connected layers."""
    mask_head: tuple[int, ...] = (32, 32)
    """Channels of the mask head's convolutions."""
    mask_pool: int = 20
    """Side of the pooled square a mask is read from, at stride 4; the mask has twice as many
    pixels a side. Binary true masks of drawn objects keep an IoU of 0.983 at 28 pixels a side,
    0.997 at 40 and 1.000 at 56; the last costs twice as much as 40."""
    proposals: int = 50
    """Regions the proposal network keeps; a drawn scene holds three objects at most."""
    detections: int = 20
    """Objects a picture, at most."""


class ResNetFPN(nn.Module):
    """Pictures (B,3,H,W) -> four maps of `fpn_channels` at strides 4 to 32, keys "0" to "3"."""

    def __init__(self, config: MaskRCNNConfig):
        super().__init__()
        self.body = ResNetBackbone(
            ResNetConfig(
                embedding_size=config.embedding_size,
                hidden_sizes=list(config.hidden_sizes),
                depths=list(config.depths),
                layer_type=config.layer_type,
                out_features=["stage1", "stage2", "stage3", "stage4"],
            )
        )
        self.fpn = FeaturePyramidNetwork(list(config.hidden_sizes), config.fpn_channels)
        self.out_channels = config.fpn_channels

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.body(pixels).feature_maps
        return self.fpn({str(level): map_ for level, map_ in enumerate(maps)})


class SubpixelTransform(GeneralizedRCNNTransform):
    """Pastes masks at the box's exact position; they come out binary, bool (n,1,H,W).

    torchvision rounds boxes to whole pixels of the original picture. Small objects pay for it:
    in the drawn world (boxes of 30 pixels) the true masks, cut out at 28x28 and pasted back, reach
    an IoU of 0.937 its way and 0.997 this way.
    """

    def postprocess(self, result, image_shapes, original_image_sizes):
        if self.training:
            return result
        for found, shape, original in zip(result, image_shapes, original_image_sizes, strict=True):
            # Training targets are cut out by roi_align(aligned=False), whose pixel i is centred
            # at i instead of i + 0.5: a mask lies half an enlarged pixel beyond its box.
            shifted = resize_boxes(found["boxes"] + 0.5, shape, original)
            parts = zip(found["masks"].split(PASTED_AT_ONCE), shifted.split(PASTED_AT_ONCE),
                        strict=True)  # fmt: skip
            found["masks"] = torch.cat([paste(*part, original) > 0.5 for part in parts])
            found["boxes"] = resize_boxes(found["boxes"], shape, original)
        return result


def paste(masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Box masks onto the picture.

    masks: float (n,1,m,m) in 0..1, each spanning its box. boxes: float (n,4) x1,y1,x2,y2 in
    pixels, far edges exclusive. size: (H,W). Returns float (n,1,H,W), 0 outside the box.
    """
    height, width = size
    x1, y1, x2, y2 = boxes.to(masks.dtype)[:, :, None].unbind(1)
    centres_x = torch.arange(width, device=masks.device, dtype=masks.dtype) + 0.5
    centres_y = torch.arange(height, device=masks.device, dtype=masks.dtype) + 0.5
    across = (centres_x - x1) / (x2 - x1).clamp(min=1e-3) * 2 - 1  # (n,W), -1..1 inside the box
    down = (centres_y - y1) / (y2 - y1).clamp(min=1e-3) * 2 - 1  # (n,H)
    shape = (len(boxes), height, width)
    grid = torch.stack([across[:, None, :].expand(shape), down[:, :, None].expand(shape)], dim=-1)
    return functional.grid_sample(masks, grid, align_corners=False)


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
        # One sample a cell: cells are no wider than two feature pixels, and training is a third
        # faster than with the usual four.
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], output_size=7, sampling_ratio=1),
        box_head=faster_rcnn.TwoMLPHead(channels * 7 * 7, width),
        box_predictor=faster_rcnn.FastRCNNPredictor(width, len(config.classes) + 1),
        # A scene's three objects and ten of the background; 32 of them took 20 to 45 % longer.
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


def read_config(file: Path) -> MaskRCNNConfig:
    """The configuration in a JSON file. Raises ValueError, naming file and field."""
    values = read_object(file)
    names = [field.name for field in fields(MaskRCNNConfig)]
    if "classes" not in values or values.keys() - set(names):
        raise ValueError(
            f"{file}: expected an object with classes and fields of {names}, got "
            f"{sorted(values)}: give a folder written by ml.foundation.train_detector"
        )
    config = MaskRCNNConfig(**{name: tuple(value) if isinstance(value, list) else value
                               for name, value in values.items()})  # fmt: skip
    lengths = {"hidden_sizes": 4, "depths": 4, "anchor_sizes": 4, "image_size": 2, "mean": 3,
               "std": 3}  # fmt: skip
    for name, length in lengths.items():
        value = getattr(config, name)
        numbers = isinstance(value, tuple) and all(isinstance(one, int | float) for one in value)
        if not numbers or len(value) != length or (name != "mean" and min(value) <= 0):
            raise ValueError(
                f"{file}: {name}: expected {length} numbers"
                f"{'' if name == 'mean' else ' above 0'}, got {value!r}"
            )
    if config.image_size[0] > config.image_size[1]:
        raise ValueError(
            f"{file}: image_size: expected the shorter side's, then the longer one's "
            f"limit, got {config.image_size}"
        )
    return config


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


def build_coco() -> detection.MaskRCNN:
    """torchvision's maskrcnn_resnet50_fpn_v2 for COCO with random weights; masks are pasted as
    ours are, because its training cuts them out in the same way."""
    classes = len(COCO.meta["categories"])
    model = detection.maskrcnn_resnet50_fpn_v2(
        weights=None, weights_backbone=None, num_classes=classes
    )
    theirs = model.transform
    model.transform = SubpixelTransform(
        theirs.min_size, theirs.max_size, theirs.image_mean, theirs.image_std
    )
    return model


def coco_file() -> Path:
    """torchvision's published COCO weights in torch's hub cache, downloaded if they are not there.

    Raises ConnectionError, saying which file to bring, if they cannot be downloaded.
    """
    name = PurePosixPath(COCO.url).name
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if file.is_file():
        return file
    try:
        if is_offline_mode():
            raise OSError("HF_HUB_OFFLINE is set")
        file.parent.mkdir(parents=True, exist_ok=True)
        checksum = file.stem.rpartition("-")[2]
        torch.hub.download_url_to_file(COCO.url, str(file), checksum, progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: not the published bytes
        raise ConnectionError(
            f"detector.model 'coco' needs torchvision's file {name} ({COCO.meta['_file_size']:.0f} "
            f"MB), which is not in {file.parent} and could not be downloaded: {error}. Bring it "
            "from a machine that can, and set detector.weights to its path"
        ) from error
    return file


class TorchvisionMaskRCNN(Detector):
    """path: a checkpoint folder, or "coco" for torchvision's published maskrcnn_resnet50_fpn_v2
    (177 MB, or the same from the file `weights`)."""

    def __init__(
        self, path: str, *, weights: str | None, revision: str | None, device: str,
        score_threshold: float, batch_size: int,
    ):  # fmt: skip
        if path == "coco":
            file = Path(weights) if weights else coco_file()
            self.model = build_coco().eval()
            fill(self.model, load_weights(file).tensors, str(file))
            self.names = COCO.meta["categories"]  # entry 0 is "__background__"
        elif weights:
            raise ValueError(
                f"detector.weights: {path!r} has weights of its own; set it to null, or "
                "detector.model to 'coco'"
            )
        else:
            self.model, config = load_maskrcnn(Path(path))
            self.names = ["__background__", *config.classes]
        self.device = device
        self.model.to(device)
        self.model.roi_heads.score_thresh = score_threshold
        known = [name for name in self.names if name not in ("__background__", "N/A")]
        super().__init__(known, score_threshold=score_threshold, batch_size=batch_size)

    @torch.inference_mode()
    def predict(self, images: list[np.ndarray]) -> list[tuple]:
        batch = [torch.tensor(image, device=self.device).permute(2, 0, 1) / 255 for image in images]
        return [
            (
                found["masks"][:, 0].cpu().numpy(),
                found["scores"].cpu().numpy(),
                [self.names[i] for i in found["labels"].tolist()],
                found["boxes"].cpu().numpy(),
            )
            for found in self.model(batch)
        ]
