"""A user's own pictures in COCO's format: JSON files of instances with categories of their own.

    annotations/instances_train.json, annotations/val.json, train/_annotations.coco.json, x.json
    pictures beside the file, or in the folder, images/, data/, <split>/ or images/<split>/

Overlaps as in `ml.datasets.coco`, but that a crowd region is its class and not ignored: supervision
marks every object with holes or of several parts so. A field `ignored` of an image, run lengths as
its objects have them, says which pixels are uncertain: `python -m ml export` writes it.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from ml.datasets.class_lists import MOST
from ml.datasets.coco import Coco2017
from ml.datasets.coco_annotations import Entry, read_own_annotations, whole_picture_mask
from ml.datasets.own_splits import of_part, split_of
from ml.images.overlays import IGNORED

OTHERS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")
"""Beginnings of COCO's files that hold no instances."""


def annotation_files(root: Path) -> list[tuple[str, Path]]:
    """(split, JSON file) of what may be COCO's annotations in a folder."""
    places = ("*.json", "annotations/*.json", "*/_annotations.coco.json")
    files = sorted({file for place in places for file in root.glob(place)})
    return [
        (split_of(file.stem) or split_of(file.parent.name), file)
        for file in files
        if not file.name.startswith((".", *OTHERS)) and _holds_instances(file)
    ]


def _holds_instances(file: Path) -> bool:
    """By its first bytes: a JSON object that names one of COCO's lists."""
    with file.open("rb") as stream:
        head = stream.read(1 << 20)
    names = (b'"images"', b'"annotations"', b'"categories"')
    return head.lstrip()[:1] == b"{" and any(name in head for name in names)


class OwnCoco(Coco2017):
    """A part of such a folder; see `protocol.LabelledPhotos` for what it offers."""

    def __init__(self, root: Path, part: str):
        self.root, self.split = Path(root), part
        self.title = f"{self.root.name} {part}"
        self.official: int | None = None
        self.hint = "list pictures under `images`, and their objects under `annotations`"
        found = annotation_files(self.root)
        if not found:
            raise ValueError(
                f"{self.root} is not in COCO's format: expected a JSON file with the lists images, "
                "annotations and categories, in it or in annotations/"
            )
        files = of_part(found, part, self.title)
        if len(files) > 1:
            raise ValueError(
                f"{self.title}: {len(files)} files may be its annotations, "
                f"{', '.join(file.name for file in files[:4])}; expected one a split. Move the "
                "others away, or name them train, val and test"
            )
        self.file = files[0]

    @cached_property
    def names(self) -> dict[int, str]:  # type: ignore[override]  # those of a file, not COCO's own
        """Label 1..n in the order of the categories' ids -> name."""
        own = self._read[0]
        if not own or len(own) > MOST:
            raise ValueError(f"{self.file}: {len(own)} categories, expected 1 to {MOST}")
        return {label: own[id_] for label, id_ in enumerate(sorted(own), start=1)}

    @cached_property
    def _read(self) -> tuple[dict[int, str], dict[int, Entry], dict[int, list[Entry]]]:
        return read_own_annotations(self.file)

    @cached_property
    def _index(self) -> tuple[dict[int, Entry], dict[int, list[Entry]]]:
        """As the base class has it, with the labels for the categories' ids."""
        categories, images, by_image = self._read
        label = {id_: label for label, id_ in enumerate(sorted(categories), start=1)}
        named = {
            key: [own | {"category_id": label[own["category_id"]], "iscrowd": 0} for own in entries]
            for key, entries in by_image.items()
        }
        return images, named

    @cached_property
    def pictures(self) -> Path:  # type: ignore[override]
        """The folder that the files' names are of: the first that has the first of them."""
        images = self._index[0]
        split = split_of(self.file.stem) or self.file.stem
        stem = self.file.stem.removeprefix("instances_")
        places = [self.file.parent, self.root, self.root / "images", self.root / "data"]
        for name in dict.fromkeys((stem, split)):
            places += [self.root / name, self.root / "images" / name]
        if not images:
            return places[0]
        first = str(images[min(images)]["file_name"])
        return next((place for place in places if (place / first).is_file()), self.root)

    def truth(self, key: str) -> np.ndarray:
        label = super().truth(key)
        ignored = self._index[0][int(key)].get("ignored")
        if ignored is not None:
            uncertain = whole_picture_mask(ignored, label.shape, f"{self.file}: image {int(key)}")
            label[uncertain & (label == 0)] = IGNORED
        return label

    def photo_files(self) -> list[Path]:
        return [self.photo(key) for key in self.keys]
