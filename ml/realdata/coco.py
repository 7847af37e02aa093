"""COCO 2017 instances as label maps.

Layout: annotations/instances_{train,val}2017.json, pictures in images/{train,val}2017 or in
{train,val}2017 beside the annotations. Test part: val2017. Overlaps: a crowd region lies lowest
and is ignored (255); of two objects the smaller one (in pixels) is on top, of equal ones that
with the larger id, so the same file always gives the same label map.
"""

import contextlib
import io
from functools import cached_property
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from ml.pictures import IGNORED

CLASSES = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
    "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog",
    "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella",
    "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite",
    "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote",
    "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)
UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
"""Category ids run from 1 to 90 and leave these out."""
CATEGORIES = dict(zip((i for i in range(1, 91) if i not in UNUSED_IDS), CLASSES, strict=True))
OFFICIAL = {"train2017": 118_287, "val2017": 5_000}
SPLITS = {"test": "val2017", "train": "train2017"}


class Coco2017:
    """A part of COCO 2017; see shared.LabelledPhotos for what it offers."""

    names = CATEGORIES  # COCO's ids fit into 8 bits, so they are the labels

    def __init__(self, root: Path, part: str):
        self.root, self.split = Path(root), SPLITS[part]
        self.title = f"COCO 2017 {self.split}"
        self.official = OFFICIAL[self.split]
        self.hint = "get the annotations again (annotations_trainval2017.zip)"
        self.file = self.root / "annotations" / f"instances_{self.split}.json"
        places = [self.root / "images" / self.split, self.root / self.split]
        self.pictures = next((place for place in places if place.is_dir()), None)
        if not self.file.is_file() or self.pictures is None:
            seen = ", ".join(sorted(path.name for path in self.root.iterdir())[:8]) or "nothing"
            raise ValueError(
                f"{self.root} does not hold {self.title}: expected {self.file.relative_to(root)} "
                f"and the pictures in images/{self.split}/ or {self.split}/, found {seen}. Unpack "
                f"annotations_trainval2017.zip and {self.split}.zip there, or set benchmark.root")

    @cached_property
    def index(self) -> COCO:
        """The annotations (train2017: half a minute, 3 GB of memory), after checking them."""
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
                index = COCO(str(self.file))
        except (ValueError, AssertionError, KeyError, TypeError) as error:
            raise ValueError(f"{self.file} is not COCO's annotations ({error!r}): half a "
                             "download? Unpack annotations_trainval2017.zip again") from error
        found = {id_: category["name"] for id_, category in index.cats.items()}
        if found != CATEGORIES:
            odd = sorted(set(found.items()) ^ set(CATEGORIES.items()))
            raise ValueError(f"{self.file}: expected COCO's 80 categories, got {len(found)}; they "
                             f"differ at {odd[:4]}. For classes of your own use benchmark.source: "
                             "folder")
        self._check_annotations(index)
        return index

    def _check_annotations(self, index: COCO) -> None:
        for ann in index.anns.values():
            if ann["image_id"] not in index.imgs or ann["category_id"] not in CATEGORIES:
                raise ValueError(f"{self.file}: annotation {ann['id']} names picture "
                                 f"{ann['image_id']} and category {ann['category_id']}; expected "
                                 "a listed picture and one of COCO's 80 categories")

    @cached_property
    def keys(self) -> tuple[str, ...]:
        return tuple(f"{image_id:012d}" for image_id in sorted(self.index.imgs))

    def photo(self, key: str) -> Path:
        return self.pictures / self.index.imgs[int(key)]["file_name"]

    def label_size(self, key: str) -> tuple[int, int]:
        image = self.index.imgs[int(key)]
        return image["height"], image["width"]

    def truth(self, key: str) -> np.ndarray:
        label = np.zeros(self.label_size(key), np.uint8)
        instances = []
        for ann in self.index.imgToAnns.get(int(key), []):
            mask = self.index.annToMask(ann).astype(bool)
            if ann.get("iscrowd", 0):
                label[mask] = IGNORED
            else:
                instances.append((-int(mask.sum()), ann["id"], mask, ann["category_id"]))
        for _, _, mask, category in sorted(instances, key=lambda item: item[:2]):
            label[mask] = category
        return label

    def label_files(self) -> list[Path]:
        return [self.file]

    def photo_files(self) -> list[Path]:
        """What lies in the pictures' folder; the annotations need not be read for that."""
        return sorted(self.pictures.glob("*.jpg"))
