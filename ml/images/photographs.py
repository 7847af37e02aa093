"""Photographs that people bring, as a viewer shows them: turned as their EXIF orientation says, in
sRGB, transparency on white.

Each is one page, whole, and of at most `ml.images.decoding.MAX_PIXELS`; everything else is refused
with the file's name. Not here: which files belong together (`ml.datasets`).
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from ml.images.arrays import Integers, Picture
from ml.images.decoding import (
    TURNED,
    bytes_of,
    damaged,
    decode,
    is_inverted,
    open_header,
    orientation_of,
    raw_mode,
    without_alpha,
)
from ml.images.png import encode_png

PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
KEPT_FORMATS = ("JPEG", "MPO", "PNG")
"""Formats whose bytes are stored unchanged when they decode to the picture. MPO is a camera's JPEG
with previews behind it: viewers show the first."""
DARKEST = 16
"""Of 255: a 16-bit picture that stays below it everywhere holds values of another range."""
SAME_COLOUR = 4
"""Levels at any pixel: sRGB profiles of several makers differ by rounding, their files are kept."""


@dataclass(frozen=True)
class Size:
    """Of a photograph as it is shown. orientation: its EXIF flag, 1 where it is stored upright."""

    height: int
    width: int
    orientation: int


def open_picture(source: Path | bytes, name: str = "the picture") -> Picture:
    """A photograph uint8 (H,W,3) RGB as a viewer shows it.

    source: a file, or a file's bytes, which `name` names in messages. 16-bit grey is scaled to
    0..255. Raises ValueError for what is no whole single picture, or has no defined range.
    """
    return load_photo(source, name)[1]


def show_picture(image: Image.Image, name: str = "the picture") -> Picture:
    """What `open_picture` gives for the file, of a picture that Pillow opened or made.

    Of several pages the one that it stands at. Raises ValueError for no pixels, what cannot be
    decoded, or has no defined range.
    """
    if not image.width or not image.height:
        raise ValueError(f"{name}: expected at least one pixel, got {image.width}x{image.height}")
    return _shown(image, None, name)[0]


def load_photo(source: Path | bytes, name: str = "the picture") -> tuple[bytes, Picture]:
    """(bytes that `ml.images.png.decode_png` reads as the picture, the picture of `open_picture`).

    A JPEG's or PNG's bytes are kept where they decode to just that: five thousand JPEGs are not
    blown up to PNG. One that is turned, grey, CMYK, transparent or of other primaries is not.
    """
    data, name = bytes_of(source, name)
    image = open_header(io.BytesIO(data), name, PHOTO_FORMATS)
    mode, kind = image.mode, image.format
    pixels, upright = _shown(image, data, name)
    if (
        kind in KEPT_FORMATS
        and mode == "RGB"
        and upright
        and np.array_equal(pixels, np.asarray(image))
    ):
        return data, pixels
    return encode_png(pixels), pixels


def _shown(image: Image.Image, data: bytes | None, name: str) -> tuple[Picture, bool]:
    """(an opened picture as a viewer shows it, whether it is stored upright). data: its file's."""
    mode, raw, inverted = image.mode, raw_mode(image), is_inverted(image)
    orientation = decode(image, data, name)
    turned = image.transpose(TURNED[orientation]) if orientation in TURNED else image
    if mode.startswith("I;16") and not inverted:
        pixels = _scaled(np.asarray(turned), 4095 if raw == "I;12" else 65535)
    elif mode == "F" or mode.startswith("I"):
        raise ValueError(
            f"{name}: expected a picture of 8 or 16 bits a channel, got mode {mode}, "
            "whose range the file does not say; save it as 8-bit RGB"
        )
    else:
        pixels = _srgb(turned, image.info.get("icc_profile"), name)
    deep = mode.startswith("I;16") or ";16" in raw and not raw.startswith("BGR")  # BMP's 5-6-5
    if deep and pixels.max() < DARKEST:
        raise ValueError(
            f"{name}: its 16-bit values use so little of their range that it would be "
            "black; scale them to the whole range, or save it with 8 bits"
        )
    return pixels, turned is image


def picture_size(source: Path | bytes, name: str = "the picture") -> Size:
    """A photograph's size as it is shown, from its header where that is enough.

    source: a file, or a file's bytes, which `name` names in messages.
    """
    name = str(source) if isinstance(source, Path) else name
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as stream:
            image = open_header(stream, name, PHOTO_FORMATS)
            # Pillow turns a TIFF itself, and gives the size after that
            orientation = 1 if image.format == "TIFF" else orientation_of(image)
    except OSError as error:  # no such file, or a PNG that ends before its EXIF block
        raise damaged(name, error) from error
    width, height = image.size
    return Size(*((width, height) if orientation >= 5 else (height, width)), orientation)


def _scaled(levels: Integers, most: int) -> Picture:
    """Grey levels 0..most -> uint8 (H,W,3)."""
    grey = ((levels.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _srgb(image: Image.Image, profile: bytes | None, name: str) -> Picture:
    """uint8 (H,W,3) sRGB of 8-bit samples in the colours that an embedded profile defines.

    A profile that does not fit the samples, or is broken, is ignored.
    """
    try:
        plain = without_alpha(image, "white")
    except ValueError as error:
        raise ValueError(
            f"{name}: mode {image.mode} cannot be shown as RGB ({error}); save it as 8-bit RGB"
        ) from error
    if not profile:
        return plain
    flat = image if image.mode in ("L", "CMYK") else Image.fromarray(plain)
    try:
        changed = np.asarray(
            ImageCms.profileToProfile(
                flat,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        )
    except (ImageCms.PyCMSError, OSError):
        return plain
    return changed if np.abs(changed.astype(np.int16) - plain).max() > SAME_COLOUR else plain
