"""Files of pictures that people bring: opened whole and of one page, or refused with their name.

What photographs (`ml.images.photographs`) and label maps (`ml.images.label_maps`) have in common.
Not here: pictures that we wrote (`ml.images.png`).
"""

import io
import struct
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from ml.images.arrays import Picture

MAX_PIXELS = 89_478_485
"""Width x height; Pillow's own line for a decompression bomb, a quarter of a GiB in RGB."""
TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def bytes_of(source: Path | bytes, name: str) -> tuple[bytes, str]:
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


def open_header(stream: BinaryIO, name: str, formats: tuple[str, ...]) -> ImageFile.ImageFile:
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
    except Exception as error:  # Pillow's readers raise many kinds of errors for a damaged header
        raise damaged(name, error) from error
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


def decode(image: Image.Image, data: bytes | None, name: str) -> int:
    """Decodes an opened picture, all of it; returns the EXIF orientation that is still to do.

    data: the file's bytes, None where they are not at hand.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if (
                data is not None and image.format == "PNG"
            ):  # checksums of every chunk, which loading does not compare
                Image.open(io.BytesIO(data)).verify()
            image.load()
            return orientation_of(image)
    except Exception as error:  # as above, out of the decoders
        raise damaged(name, error) from error


def damaged(name: str, error: Exception) -> ValueError:
    return ValueError(
        f"{name} cannot be decoded ({type(error).__name__}: {error}): half a download? Get it again"
    )


def orientation_of(image: Image.Image) -> int:
    """The EXIF flag 1..8; 1 where there is none, or where the block is broken, as viewers do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            flag = image.getexif().get(274, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return 1
    return flag if flag in TURNED else 1


def raw_mode(image: Image.Image) -> str:
    """Pillow's name of how samples lie in the file, "L;4"; known until the picture is loaded."""
    if not isinstance(image, ImageFile.ImageFile) or not image.tile:
        return ""
    args = image.tile[0].args
    return str(args if isinstance(args, str) else args[0] if args else "")


def is_inverted(image: Image.Image) -> bool:
    """A TIFF with white as 0, which Pillow inverts at 8 bits and does not at 16."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(262) == 0


def without_alpha(image: Image.Image, behind: str) -> Picture:
    """uint8 (H,W,3), transparent parts in the colour of what lies behind."""
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    image = image.convert("RGBA")
    return np.asarray(
        Image.alpha_composite(Image.new("RGBA", image.size, behind), image).convert("RGB")
    )
