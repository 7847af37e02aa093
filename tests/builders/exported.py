"""A small labelled set in shards, with everything that a format may stumble over."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from ml.exports.about import About, Licence
from ml.exports.exporting import Order, write_export
from ml.exports.pictures import LABELLED
from ml.images.facts import picture_facts
from ml.images.png import decode_png, encode_png
from ml.store.making import write_shards
from ml.store.shards import split

CLASSES = ("Straßenbahn", "cat's: paw", "no", "tv | monitor <b>", "黒猫")
"""Names that YAML, XML, Markdown and CSV take for something else, when they are not quoted."""
SCHEMA = pa.schema([*LABELLED, ("text", pa.string()), ("seed", pa.int64())])
ABOUT = About(
    name="A set: of *tests*",
    digest="0" * 64,
    intro="Noise with labels.",
    classes=CLASSES,
    origin={"text": "prompt", "seed": "seed"},
    facts=(("diffusion model", "a/b, revision c"),),
    faults=("It is | noise.",),
    licences=(Licence("a/b", "CC0", "cc0-1.0"),),
)


def label_maps() -> list[np.ndarray]:
    """uint8 (H,W) each: holes, several parts, parts that touch at a corner, a single pixel, the
    picture's edge, uncertain pixels, none of anything."""
    maps = [np.zeros((40, 56), np.uint8) for _ in range(8)]
    maps[0][5:30, 5:40], maps[0][10:20, 12:20] = 1, 0  # a hole
    maps[1][2:8, 2:8], maps[1][20:30, 30:50], maps[1][32:38, 4:9] = 2, 2, 2  # three parts
    maps[2][10, 10] = 3  # one pixel
    maps[3][:] = 4  # all of it
    maps[3][10:20, 10:20] = 255
    maps[4][:20, :28], maps[4][20:, 28:] = 5, 5  # parts that touch at a corner
    maps[4][:20, 28:] = 1
    maps[6][0, :], maps[6][-1, :], maps[6][:, 0], maps[6][:, -1] = 255, 255, 255, 255
    rng = np.random.default_rng(0)
    maps[7] = rng.integers(0, 6, (10, 14), np.uint8).repeat(4, 0).repeat(4, 1)
    maps.append(np.zeros((33, 21), np.uint8))  # of another size
    maps[8][4:9, 4:21] = 2
    return maps


def picture_of(number: int, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(number)
    blobs = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(blobs.resize(shape[::-1], Image.Resampling.BICUBIC))


def rows() -> pd.DataFrame:
    """The last picture but one is not accepted; one is a JPEG."""
    found = []
    for number, label in enumerate(label_maps()):
        data = encode_png(picture_of(number, label.shape))
        if number == 6:
            buffer = io.BytesIO()
            Image.fromarray(decode_png(data)).save(buffer, "JPEG", quality=90)
            data = buffer.getvalue()
        facts = picture_facts(decode_png(data))
        found.append(
            {
                "key": f"picture-{number:03d}",
                "file": f"{number}.png",
                "image": data,
                "label": encode_png(label),
                "accepted": number != 7,
                "text": f'a "photograph", {number};\n of <things> | 黒',
                "seed": 2**32 - 1 - number,
            }
            | {name: facts[name] for name in ("width", "height", "dhash", "sha256")}
        )
    return pd.DataFrame(found)


def write_set(folder: Path, frame: pd.DataFrame | None = None, size: int = 4) -> Path:
    """The shards of a set; returns their folder."""
    frame = rows() if frame is None else frame
    plan = split(range(len(frame)), size)
    write_shards(folder, "by hand", plan, lambda part: frame.iloc[list(part)], SCHEMA)
    return folder


def export(folder: Path, kind: str, shards: Path, **changes) -> dict:
    """The set in a format; returns what `write_export` does."""
    order = {"shares": {"train": 0.75, "val": 0.25}, "seed": 0, "bits": 2} | changes
    return write_export(folder, shards, ABOUT, Order(kind, **order))


def truth() -> dict[str, np.ndarray]:
    """Key -> label map of the accepted pictures."""
    frame = rows()
    kept = frame[frame.accepted]
    return {key: decode_png(data) for key, data in zip(kept.key, kept.label, strict=True)}
