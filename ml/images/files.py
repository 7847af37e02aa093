"""Picture files that people bring: photographs and label maps, each opened in one way everywhere.

A photograph is what a viewer shows: turned as its EXIF orientation says, in sRGB, transparency on
white. A label map is what its samples say: palette indices or grey values, never colours. Both are
of one page, whole, and of at most MAX_PIXELS; everything else is refused with the file's name.
Not here: which files belong together (`ml.datasets`), or pictures that we wrote
(`ml.images.contact_sheet`).
"""

import io
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from ml.images.png import encode_png

MAX_PIXELS = 89_478_485
"""Width x height; Pillow's own line for a decompression bomb, a quarter of a GiB in RGB."""
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
MASK_FORMATS = ("PNG", "TIFF")
"""Whose samples come back as they were written; Pillow's BMP and GIF may rewrite a grey palette,
JPEG and WebP change values at edges."""
KEPT_FORMATS = ("JPEG", "MPO", "PNG")
"""Whose bytes are stored as they are when they decode to the picture. MPO is a camera's JPEG with
previews behind it: viewers show the first."""
DARKEST = 16
"""Of 255: a 16-bit picture that stays below it everywhere holds values of another range."""
SAME_COLOUR = 4
"""Levels at any pixel: sRGB profiles of several makers differ by rounding, their files are kept."""
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_STEPS = {"1": 255, "L;2": 85, "L;4": 17}
"""Pillow stretches grey samples of 1, 2 and 4 bits to 0..255; a label is the sample itself."""


@dataclass(frozen=True)
class Size:
    """Of a photograph as it is shown. orientation: its EXIF flag, 1 where it is stored upright."""

    height: int
    width: int
    orientation: int


@dataclass(frozen=True, eq=False)
class Mask:
    """A label map's file, upright. step: what Pillow multiplied its grey samples with."""

    path: Path
    image: Image.Image
    step: int

    def labels(self) -> np.ndarray:
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
        used = [index for index in np.unique(self.image).tolist() if index < len(palette)]
        if np.ptp(palette[used], axis=1).any():
            return {}
        return {index: int(palette[index, 0]) for index in used}

    def colours(self) -> np.ndarray:
        """uint8 (H,W,3) as the mask is shown; what is transparent is black, the background."""
        image = self.image
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
            raise ValueError(
                f"{self.path}: expected a mask in colours of 8 bits, got mode "
                f"{image.mode}; export it as an RGB or indexed PNG"
            )
        return _without_alpha(image, "black")


def open_picture(source: Path | bytes, name: str = "the picture") -> np.ndarray:
    """A photograph uint8 (H,W,3) RGB as a viewer shows it.

    source: a file, or a file's bytes, which `name` names in messages. 16-bit grey is scaled to
    0..255. Raises ValueError for what is no whole single picture, or has no defined range.
    """
    return load_photo(source, name)[1]


def load_photo(source: Path | bytes, name: str = "the picture") -> tuple[bytes, np.ndarray]:
    """(bytes that `ml.images.png.decode_png` reads as the picture, the picture of `open_picture`).

    A JPEG's or PNG's bytes are kept where they decode to just that: five thousand JPEGs are not
    blown up to PNG. One that is turned, grey, CMYK, transparent or of other primaries is not.
    """
    data, name = _bytes(source, name)
    image = _opened(io.BytesIO(data), name, PHOTO_FORMATS)
    mode, kind, raw, inverted = image.mode, image.format, _raw(image), _inverted(image)
    orientation = _load(image, data, name)
    turned = image.transpose(_TURNED[orientation]) if orientation in _TURNED else image
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
    if (
        kind in KEPT_FORMATS
        and mode == "RGB"
        and turned is image
        and np.array_equal(pixels, np.asarray(image))
    ):
        return data, pixels
    return encode_png(pixels), pixels


def picture_size(path: Path) -> Size:
    """A photograph's size as it is shown, from its header where that is enough."""
    try:
        with path.open("rb") as stream:
            image = _opened(stream, str(path), PHOTO_FORMATS)
            # Pillow turns a TIFF itself, and gives the size after that
            orientation = 1 if image.format == "TIFF" else _orientation(image)
    except OSError as error:  # no such file, or a PNG that ends before its EXIF block
        raise _damaged(str(path), error) from error
    width, height = image.size
    return Size(*((width, height) if orientation >= 5 else (height, width)), orientation)


def open_mask(path: Path) -> Mask:
    """A label map's file, whole and upright. ValueError for a format that changes samples."""
    data, name = _bytes(path, "")
    image = _opened(io.BytesIO(data), name, MASK_FORMATS)
    if _inverted(image):
        raise ValueError(
            f"{name}: white is stored as 0 in this TIFF, so that a sample is not its "
            "label; save it as PNG"
        )
    step = _STEPS.get(_raw(image), 1)
    orientation = _load(image, data, name)
    if orientation in _TURNED:
        image = image.transpose(_TURNED[orientation])
    return Mask(path, image, step)


def _bytes(source: Path | bytes, name: str) -> tuple[bytes, str]:
    if not isinstance(source, Path):
        if not isinstance(source, bytes | bytearray | memoryview):
            raise ValueError(
                f"{name}: expected the bytes of a picture file, got {type(source).__name__}"
            )
        return bytes(source), name
    try:
        return source.read_bytes(), str(source)
    except OSError as error:
        raise ValueError(
            f"{source} cannot be decoded ({error.strerror or error}); expected a picture file"
        ) from error


def _opened(stream: BinaryIO, name: str, formats: Sequence[str]) -> Image.Image:
    """The header, read. One page of at most MAX_PIXELS in one of the formats."""
    try:
        with warnings.catch_warnings():  # what it warns of is refused below, or does not matter
            warnings.simplefilter("ignore")
            image = Image.open(stream, formats=formats)
            pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Image.DecompressionBombError as error:
        raise ValueError(
            f"{name}: expected at most {MAX_PIXELS:,} pixels, got more ({error}); make it smaller"
        ) from error
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{name} is no picture: it cannot be decoded as {', '.join(formats)}: half"
            " a download, or another format? Get it again, or convert it to PNG"
        ) from error
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads them to
        raise _damaged(name, error) from error
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{name}: expected at most {MAX_PIXELS:,} pixels, got {image.width}x"
            f"{image.height}; make it smaller"
        )
    if pages > 1:
        raise ValueError(
            f"{name} holds {pages} pictures (pages, or an animation); expected one: "
            "save the one that is meant as a file of its own"
        )
    return image


def _load(image: Image.Image, data: bytes, name: str) -> int:
    """Decodes an opened picture, all of it; returns the EXIF orientation that is still to do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if image.format == "PNG":  # checksums of every chunk, which loading does not compare
                Image.open(io.BytesIO(data)).verify()
            image.load()
            return _orientation(image)
    except Exception as error:  # as above, out of the decoders
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name} cannot be decoded ({type(error).__name__}: {error}): half a download? Get it again"
    )


def _orientation(image: Image.Image) -> int:
    """The EXIF flag 1..8; 1 where there is none, or where the block is broken, as viewers do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flag = image.getexif().get(274, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return 1
    return flag if flag in _TURNED else 1


def _raw(image: Image.Image) -> str:
    """Pillow's name of how samples lie in the file, "L;4"; known until the picture is loaded."""
    if not image.tile:
        return ""
    args = image.tile[0].args
    return str(args if isinstance(args, str) else args[0] if args else "")


def _inverted(image: Image.Image) -> bool:
    """A TIFF with white as 0, which Pillow inverts at 8 bits and does not at 16."""
    return image.format == "TIFF" and image.tag_v2.get(262) == 0


def _scaled(levels: np.ndarray, most: int) -> np.ndarray:
    """Grey levels 0..most -> uint8 (H,W,3)."""
    grey = ((levels.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _without_alpha(image: Image.Image, behind: str) -> np.ndarray:
    """uint8 (H,W,3), transparent parts in the colour of what lies behind."""
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    image = image.convert("RGBA")
    return np.asarray(
        Image.alpha_composite(Image.new("RGBA", image.size, behind), image).convert("RGB")
    )


def _srgb(image: Image.Image, profile: bytes | None, name: str) -> np.ndarray:
    """uint8 (H,W,3) sRGB of 8-bit samples in the colours that an embedded profile defines.

    A profile that does not fit the samples, or is broken, says nothing about them.
    """
    try:
        plain = _without_alpha(image, "white")
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
