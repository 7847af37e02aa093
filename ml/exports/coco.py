"""COCO's instances: pictures beside a JSON file a split, with exact run lengths.

    annotations/instances_<split>.json
    <split>/<key>.png

An object is a class's region of a picture. Written a picture at a time: the two long lists go to
files of their own, which are joined at the end.
"""

import json
import shutil
from pathlib import Path
from typing import IO, Any

import numpy as np
from pycocotools import mask as coco_mask

from ml.exports.about import About
from ml.exports.pictures import Picture
from ml.images.arrays import Masks
from ml.images.overlays import IGNORED

READ = """\
from pycocotools.coco import COCO

coco = COCO("{folder}/annotations/instances_{split}.json")  # the pictures: {folder}/{split}/
mask = coco.annToMask(coco.anns[1])  # uint8 (H,W)
"""


def run_lengths_of(mask: Masks) -> dict[str, Any]:
    """COCO's run lengths {"size": [h, w], "counts": text} of a mask bool (H,W)."""
    found = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in found["size"]], "counts": found["counts"].decode()}


class FormatWriter:
    READ = READ
    LOSES = (
        "Uncertain pixels (255) belong to no object; each image's field ignored has them as run "
        "lengths, which standard readers pass over.",
    )

    def __init__(self, folder: Path, about: About, splits: tuple[str, ...]) -> None:
        self.folder = folder
        self.lists = {name: _Lists(folder, name, about) for name in splits}

    def add(self, picture: Picture) -> None:
        file = self.folder / picture.split / f"{picture.key}.{picture.suffix}"
        file.write_bytes(picture.data)
        self.lists[picture.split].add(picture, file.name)

    def finish(self) -> dict[str, Any]:
        return {"objects": sum(own.finish() for own in self.lists.values())}

    def front_matter(self) -> dict[str, Any]:
        return {}


class _Lists:
    """The JSON file of one split."""

    def __init__(self, folder: Path, split: str, about: About) -> None:
        (folder / split).mkdir()
        self.path = folder / "annotations" / f"instances_{split}.json"
        self.path.parent.mkdir(exist_ok=True)
        self.rest = self.path.with_name(f"annotations_{split}.part")
        self.images: IO[str] = self.path.open("w", encoding="utf-8")
        self.annotations: IO[str] = self.rest.open("w", encoding="utf-8")
        self.image_count = self.object_count = 0
        head = {
            "info": {
                "description": f"{about.name}: {about.intro}",
                "version": about.digest[:12],
                "contributor": "words to masks",
                "faults": list(about.faults),
            },
            "licenses": [
                {"id": place, "name": f"{own.name} ({own.weights})", "url": ""}
                for place, own in enumerate(about.licences, start=1)
            ],
            "categories": [
                {"id": label, "name": name, "supercategory": "object"}
                for label, name in enumerate(about.classes, start=1)
            ],
        }
        self.images.write(f'{json.dumps(head, ensure_ascii=False)[:-1]}, "images": [\n')

    def add(self, picture: Picture, file: str) -> None:
        height, width = picture.label.shape
        self.image_count += 1
        image: dict[str, Any] = {
            "id": self.image_count,
            "file_name": file,
            "height": height,
            "width": width,
            "license": 1,
            **picture.origin,
        }
        if (ignored := picture.mask(IGNORED)).any():
            image["ignored"] = run_lengths_of(ignored)
        _append(self.images, image, self.image_count)
        for label in picture.labels:
            mask = picture.mask(label)
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            left, top = int(columns[0]), int(rows[0])
            self.object_count += 1
            annotation = {
                "id": self.object_count,
                "image_id": self.image_count,
                "category_id": label,
                "segmentation": run_lengths_of(mask),
                "area": int(mask.sum()),
                "bbox": [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1],
                "iscrowd": 0,
            }
            _append(self.annotations, annotation, self.object_count)

    def finish(self) -> int:
        self.images.write('\n], "annotations": [\n')
        self.annotations.close()
        with self.rest.open(encoding="utf-8") as rest:
            shutil.copyfileobj(rest, self.images)
        self.images.write("\n]}\n")
        self.images.close()
        self.rest.unlink()
        return self.object_count


def _append(file: IO[str], entry: dict[str, Any], number: int) -> None:
    file.write((",\n" if number > 1 else "") + json.dumps(entry, ensure_ascii=False))
