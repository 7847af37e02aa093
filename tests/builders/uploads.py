"""Pictures as people bring them, good and bad: name of the file -> its bytes."""

import io

import numpy as np
from PIL import Image

from tests.builders.bombs import png


def encoded(image: Image.Image, kind: str = "PNG", **how) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    rows = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    return Image.fromarray(rows).resize((width, height), Image.Resampling.NEAREST)


def turned() -> bytes:
    """Stored as 90 x 60, shown as 60 x 90."""
    exif = Image.Exif()
    exif[274] = 6
    return encoded(scene(90, 60), "JPEG", exif=exif)


def transparent() -> bytes:
    image = scene(80, 50).convert("RGBA")
    image.putalpha(0)
    return encoded(image)


def animated() -> bytes:
    frames = [scene(40, 40, seed) for seed in range(3)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


REFUSED = {
    "notes.png": (b"dear diary", "notes.png is no picture"),
    "empty.png": (b"", "empty.png is empty (0 bytes)"),
    "half.png": (encoded(scene(64, 64, 3))[:150], "half.png cannot be decoded"),
    "moving.gif": (animated(), "moving.gif holds 3 pictures"),
    "bomb.png": (png(60_000, 60_000), "bomb.png: expected at most"),
}
"""-> (bytes, how the sentence about it begins)."""
ACCEPTED = {
    "wide.png": (encoded(scene(10_000, 40)), "10000 x 40 pixels"),
    "clear.png": (transparent(), "80 x 50 pixels"),
    "turned.jpg": (turned(), "60 x 90 pixels"),
}
"""-> (bytes, the size that is told)."""
