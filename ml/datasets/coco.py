"""COCO 2017 instances as label maps.

Layout: annotations/instances_{train,val}2017.json, pictures in images/{train,val}2017 or in
{train,val}2017 beside the annotations. Test part: val2017. Overlaps: a crowd region lies lowest
and is ignored (255); of two objects the smaller one (in pixels) is on top, of equal ones that
with the larger id, so the same file always gives the same label map.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from ml.datasets.coco_annotations import Entry, annotation_runs, read_annotations
from ml.datasets.listing import PHOTO_SUFFIXES, is_junk
from ml.datasets.photos import PhotoFiles
from ml.images.overlays import IGNORED
from ml.images.run_lengths import runs_to_mask

CLASSES = (
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "mouse",
    "remote",
    "keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
)
UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
"""Category ids run from 1 to 90 and leave these out."""
CATEGORIES = dict(zip((i for i in range(1, 91) if i not in UNUSED_IDS), CLASSES, strict=True))
OFFICIAL = {"train2017": 118_287, "val2017": 5_000}
SPLITS = {"test": "val2017", "train": "train2017"}


class Coco2017(PhotoFiles):
    """A part of COCO 2017; see `protocol.LabelledPhotos` for what it offers."""

    names = CATEGORIES  # COCO's ids fit into 8 bits, so they are the labels
    label_hint = "Its objects are all crowds, which are ignored: bring pictures with objects"

    def __init__(self, root: Path, part: str):
        self.root, self.split = Path(root), SPLITS[part]
        self.title = f"COCO 2017 {self.split}"
        self.official: int | None = OFFICIAL[self.split]
        self.hint = "get the annotations again (annotations_trainval2017.zip)"
        self.file = self.root / "annotations" / f"instances_{self.split}.json"
        places = [self.root / "images" / self.split, self.root / self.split]
        pictures = next((place for place in places if place.is_dir()), None)
        if not self.file.is_file() or pictures is None:
            seen = ", ".join(sorted(path.name for path in self.root.iterdir())[:8]) or "nothing"
            raise ValueError(
                f"{self.root} does not hold {self.title}: expected {self.file.relative_to(root)} "
                f"and the pictures in images/{self.split}/ or {self.split}/, found {seen}. Unpack "
                f"annotations_trainval2017.zip and {self.split}.zip there, or set benchmark.root"
            )
        self.pictures = pictures

    @cached_property
    def _index(self) -> tuple[dict[int, Entry], dict[int, list[Entry]]]:
        """The checked annotations (train2017: half a minute, 3 GB of memory)."""
        return read_annotations(self.file, CATEGORIES)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        return tuple(f"{image_id:012d}" for image_id in sorted(self._index[0]))

    def photo(self, key: str) -> Path:
        return self.inside(self.pictures / str(self._index[0][int(key)]["file_name"]))

    def labelled(self, key: str) -> tuple[tuple[int, int], set[int]]:
        image, annotations = self._index[0][int(key)], self._index[1][int(key)]
        labels = {IGNORED if ann.get("iscrowd", 0) else ann["category_id"] for ann in annotations}
        return (image["height"], image["width"]), labels

    def truth(self, key: str) -> np.ndarray:
        image, annotations = self._index[0][int(key)], self._index[1][int(key)]
        label = np.zeros((image["height"], image["width"]), np.uint8)
        instances = []  # as run lengths: many masks of a large picture would fill the memory
        for ann in annotations:
            runs = annotation_runs(ann, *label.shape)
            if ann.get("iscrowd", 0):
                label[runs_to_mask(runs, *label.shape)] = IGNORED
            else:
                instances.append((-sum(runs[1::2]), ann["id"], runs, ann["category_id"]))
        for _, _, runs, category in sorted(instances, key=lambda item: item[:2]):
            label[runs_to_mask(runs, *label.shape)] = category
        return label

    def label_files(self) -> list[Path]:
        return [self.file]

    def photo_files(self) -> list[Path]:
        """All pictures in the folder, found without reading the annotations."""
        return sorted(
            path
            for path in self.pictures.rglob("*")
            if path.suffix.lower() in PHOTO_SUFFIXES and not is_junk(path)
        )
