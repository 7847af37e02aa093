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

from ml.exports.about import About
from ml.exports.pictures import Picture
from ml.exports.writing import Writer
from ml.images.boxes import mask_box
from ml.images.overlays import IGNORED
from ml.images.run_lengths import coco_rle

READ = """\
from pycocotools.coco import COCO

coco = COCO("{folder}/annotations/instances_{split}.json")  # the pictures: {folder}/{split}/
mask = coco.annToMask(coco.anns[1])  # uint8 (H,W)
"""


class FormatWriter(Writer):
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
            image["ignored"] = coco_rle(ignored)
        _append(self.images, image, self.image_count)
        for label in picture.labels:
            mask = picture.mask(label)
            left, top, right, bottom = mask_box(mask)
            self.object_count += 1
            annotation = {
                "id": self.object_count,
                "image_id": self.image_count,
                "category_id": label,
                "segmentation": coco_rle(mask),
                "area": int(mask.sum()),
                "bbox": [left, top, right - left, bottom - top],
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
