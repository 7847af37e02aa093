"""Picture files as other tools write them: turned, of few bits, stating any size; and the way from
a folder to a checked source."""

import dataclasses
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from ml.datasets import open_source
from ml.datasets.photos import PhotoFiles
from ml.settings.profile import load_params
from ml.words.vocabulary import Vocabulary
from tests.builders import phototrees as trees

YARD = Vocabulary("yard", ("person",), ("forklift", "hard hat"), {})
SCENE = trees.noise(24, 36, 1)
GREY = np.asarray(Image.fromarray(SCENE).convert("L"))
FLAGS = range(1, 9)


def opened(source: str, root: Path, part: str = "test") -> PhotoFiles:
    settings = dataclasses.replace(load_params().benchmark, source=source, root="somewhere")
    return open_source(settings, part, str(root))


def checked(source: str, root: Path, vocabulary: Vocabulary | None = None) -> PhotoFiles:
    photos = opened(source, root)
    photos.check(photos.keys, "any", vocabulary)
    return photos


def saved(folder: Path, image: Image.Image, name: str = "x.png", **how) -> Path:
    image.save(folder / name, **how)
    return folder / name


def as_shown(stored: np.ndarray, flag: int) -> np.ndarray:
    """EXIF's table, by numpy: where the 0th row and column of the stored picture are shown."""
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: stored[::-1].swapaxes(0, 1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: stored[:, ::-1].swapaxes(0, 1),
    }[flag]


def save_turned(path, pixels: np.ndarray, flag: int, **how) -> None:
    exif = Image.Exif()
    exif[274] = flag
    Image.fromarray(pixels).save(path, exif=exif, **how)


def png(width: int, height: int, bits: int, rows: bytes, colour: int = 0) -> bytes:
    """A PNG of the filtered rows, which may be fewer than the size says; colour: 0 grey, 2 RGB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def png_bomb(width: int, height: int) -> bytes:
    """A few bytes that state a size."""
    return png(width, height, 8, b"\0" * 1000)


def png_grey(label: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2, 4, 8 or 16 bits a sample."""
    height, width = label.shape
    digits = (label[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(digits.reshape(height, width * bits).astype(bool), axis=1)
    return png(width, height, bits, b"".join(b"\0" + row.tobytes() for row in rows))
