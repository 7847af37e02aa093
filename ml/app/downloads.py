"""Files that a person takes along: the masks of a picture as PNG, and as COCO's instances."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from ml.app.finding import Found
from ml.images.png import encode_png
from ml.images.run_lengths import coco_rle


def write_masks(found: Found, folder: Path) -> Path:
    """A zip with `1-dog.png`, `2-cat.png`, ...: 0 and 255, at the picture's own size, one for each
    word that was asked for."""
    place = folder / "masks.zip"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_STORED) as archive:
        for number, (word, mask) in enumerate(found.full_masks(), 1):
            png = encode_png(mask.astype(np.uint8) * 255)
            archive.writestr(f"{number}-{slug(word)}.png", png)
    return place


def write_coco(found: Found, folder: Path) -> Path:
    """An instances file of COCO: one picture, a category a word, an annotation for each word that
    has a mask, with exact run lengths, area and box."""
    place, annotations, categories = folder / "masks.coco.json", [], []
    for number, (word, mask) in enumerate(found.full_masks(), 1):
        categories.append({"id": number, "name": word, "supercategory": ""})
        if not mask.any():
            continue
        rle = coco_rle(mask)
        annotations.append(
            {
                "id": number,
                "image_id": 1,
                "category_id": number,
                "segmentation": rle,
                "area": int(mask.sum()),
                "bbox": [float(side) for side in coco_mask.toBbox(rle)],
                "iscrowd": 0,
            }
        )
    height, width = found.size
    image = {"id": 1, "file_name": found.file, "height": height, "width": width}
    content = {
        "info": {"description": "Masks of words, found by words to masks"},
        "images": [image],
        "annotations": annotations,
        "categories": categories,
    }
    place.write_text(json.dumps(content), encoding="utf-8")
    return place


def slug(word: str) -> str:
    """A word as a part of a file's name on any system."""
    return re.sub(r"[^\w-]+", "_", word)[:60].strip("_") or "word"
