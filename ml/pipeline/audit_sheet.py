"""The pictures of the audit sheet, ready to be shown. Which ones they are: `ml.pipeline.audit`."""

import io

import numpy as np
from PIL import Image

from ml.images.overlays import overlay
from ml.images.png import decode_png, jpeg_uri
from ml.pipeline.audit import ITEMS, STAGE, choose_items
from ml.pipeline.workspace import Workspace
from ml.store.shards import read_rows, read_shards
from ml.words.vocabulary import Vocabulary

THUMBNAIL = 224
"""Side of an audit picture at most, pixels; 100 JPEGs of it are 1 to 2 MB."""


def audit_items(workspace: Workspace, vocabulary: Vocabulary, seed: int) -> list[dict]:
    """The pictures to tick, a dictionary each.

    "key" and "text" of the picture, "entity": the class to judge, "image": a data URI of the
    picture with that class's pixels of its label map laid over.
    """
    folder = workspace.folder(STAGE)
    rows = read_shards(folder, ["key", "text", "entities", "accepted"])
    rows = rows[rows.accepted].reset_index(drop=True)
    chosen = choose_items([list(names) for names in rows.entities], vocabulary.classes, ITEMS, seed)
    keys = [rows.key[i] for i, _ in chosen]
    pixels = read_rows(folder, ["key", "image", "label"], keys).set_index("key")
    return [
        {
            "key": key,
            "entity": entity,
            "text": rows.text[i],
            "image": thumbnail(
                decode_png(pixels.image[key]),
                decode_png(pixels.label[key]) == vocabulary.label(entity),
            ),
        }
        for (i, entity), key in zip(chosen, keys, strict=True)
    ]


def thumbnail(image: np.ndarray, mask: np.ndarray) -> str:
    """A data URI of the picture uint8 (H,W,3), a JPEG of at most THUMBNAIL pixels a side, in which
    the mask bool (H,W) is tinted and outlined."""
    scale = THUMBNAIL / max(image.shape[:2])
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    big = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    soft = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    Image.fromarray(overlay(big, np.asarray(soft) > 127)).save(buffer, "JPEG", quality=82)
    return jpeg_uri(buffer.getvalue())
