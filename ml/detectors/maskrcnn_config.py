"""The configuration of this project's Mask R-CNN: the fields of its config.json, and their checks.

The micro checkpoint and a full-size one differ in these numbers alone.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ml.store.reading import read_object


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
    pixels a side, enough for drawn objects
    (docs/ablations.md#the-drawn-worlds-mask-r-cnn)."""
    proposals: int = 50
    """Regions the proposal network keeps; a drawn scene holds three objects at most."""
    detections: int = 20
    """Objects a picture, at most."""


def read_config(file: Path) -> MaskRCNNConfig:
    """The configuration in a JSON file. Raises ValueError, naming file and field."""
    values = read_object(file)
    names = [field.name for field in fields(MaskRCNNConfig)]
    if "classes" not in values or values.keys() - set(names):
        raise ValueError(
            f"{file}: expected an object with classes and fields of {names}, got "
            f"{sorted(values)}: give a folder written by ml.foundation.train_detector"
        )
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }
    config = MaskRCNNConfig(**given)
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
