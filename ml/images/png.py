"""Pictures uint8 (H,W,3) and label maps uint8 (H,W) as PNG bytes and back."""

import base64
import io

import numpy as np
from PIL import Image

from ml.images.arrays import Labels, Picture
from ml.images.decoding import open_header

FORMATS = ("PNG", "JPEG")
"""A photograph's JPEG bytes are kept where they can be (`ml.images.photographs`)."""


def encode_png(picture: Picture | Labels) -> bytes:
    """PNG bytes of a picture uint8 (H,W,3) or a label map uint8 (H,W). ValueError for others."""
    colour = picture.ndim == 3 and picture.shape[2] == 3
    if picture.dtype != np.uint8 or not (colour or picture.ndim == 2) or picture.size == 0:
        raise ValueError(
            f"expected uint8 (H,W,3) or (H,W), got {picture.dtype} {picture.shape}: "
            "scale to 0..255 and put channels last"
        )
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg_uri(data: bytes) -> str:
    """The bytes of a JPEG as a data URI, for a page that refers to nothing outside."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def decode_png(data: bytes) -> Picture:
    """The uint8 array that `encode_png` took; of a palette PNG (VOC's label maps) the indices.

    Raises ValueError for bytes that are not a whole image, or one of more than
    `ml.images.decoding.MAX_PIXELS`.
    """
    try:
        image: Image.Image = open_header(io.BytesIO(data), "the picture", FORMATS)
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds of errors for damaged bytes
        raise ValueError(
            f"expected the bytes of a PNG, got {data!r:.40} ({error}): make this sample again"
        ) from error
    if image.mode not in ("L", "P", "RGB"):
        image = image.convert("RGB")
    return np.array(image)
