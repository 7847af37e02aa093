"""Label maps that people bring: the samples of a file, palette indices or grey values, not colours.

Each is one page, whole, and of at most `ml.images.decoding.MAX_PIXELS`; everything else is refused
with the file's name.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ml.images.arrays import Integers, Picture
from ml.images.decoding import (
    TURNED,
    bytes_of,
    decode,
    is_inverted,
    open_header,
    raw_mode,
    without_alpha,
)

MASK_FORMATS = ("PNG", "TIFF")
"""Whose samples come back as they were written; Pillow's BMP and GIF may rewrite a grey palette,
JPEG and WebP change values at edges."""
_STEPS = {"1": 255, "L;2": 85, "L;4": 17}
"""Pillow stretches grey samples of 1, 2 and 4 bits to 0..255; a label is the sample itself."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A label map's file, upright. step: what Pillow multiplied its grey samples with."""

    path: Path | str  # or what names it in messages
    image: Image.Image
    step: int

    def labels(self) -> Integers:
        """Integers (H,W): palette indices or grey samples. ValueError for colours."""
        image = self.image
        if image.mode == "LA" and image.getextrema()[1] == (255, 255):
            image = image.convert("L")
        if image.mode in ("1", "L"):
            return np.asarray(image.convert("L")) // self.step
        if image.mode not in ("P", "I") and not image.mode.startswith("I;16"):
            raise ValueError(
                f"{self.path}: expected labels as grey levels or palette indices (mode L or P), got"
                f" mode {image.mode}; export it as an indexed PNG, or list its colours in "
                "palette.txt instead of classes.txt"
            )
        return np.asarray(image)

    def greys(self) -> dict[int, int]:
        """index -> grey of the used entries of a palette of greys alone, else nothing."""
        if self.image.mode != "P":
            return {}
        palette = np.array(self.image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        used = [
            index for index in np.unique(np.asarray(self.image)).tolist() if index < len(palette)
        ]
        if np.ptp(palette[used], axis=1).any():
            return {}
        return {index: int(palette[index, 0]) for index in used}

    def colours(self) -> Picture:
        """uint8 (H,W,3) as the mask is shown; what is transparent is black, the background."""
        image = self.image
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            raise ValueError(
                f"{self.path}: expected a mask in colours of 8 bits, got mode "
                f"{image.mode}; export it as an RGB or indexed PNG"
            )
        return without_alpha(image, "black")


def open_mask(source: Path | bytes, name: str = "the mask") -> Mask:
    """A label map, whole and upright. ValueError for a format that changes samples.

    source: a file, or a file's bytes, which `name` names in messages.
    """
    data, name = bytes_of(source, name)
    image = open_header(io.BytesIO(data), name, MASK_FORMATS)
    if is_inverted(image):
        raise ValueError(
            f"{name}: white is stored as 0 in this TIFF, so that a sample is not its "
            "label; save it as PNG"
        )
    step = _STEPS.get(raw_mode(image), 1)
    orientation = decode(image, data, name)
    upright = image.transpose(TURNED[orientation]) if orientation in TURNED else image
    return Mask(source if isinstance(source, Path) else name, upright, step)
