"""A user's own labelled folder.

    images/    photographs (`listing.PHOTO_SUFFIXES`, in any case), any sizes
    masks/     one PNG or TIFF a photograph, of the same stem and size
    classes.txt   one class a line; the first line is label 1 (a first line `background` is 0)
    palette.txt   instead, for masks in colours: `128 0 0 forklift` a line; black is background,
                  white is ignored unless listed
    test.txt, train.txt   stems, optional: which pictures are the benchmark, which train the bound

With classes.txt masks hold labels as grey levels or palette indices, 255 ignored. Without
train.txt there is no training part, hence no real bound; without test.txt every picture that is
not in train.txt is a test picture, and each needs its mask and each mask its picture. As
labels to learn from (`triplets.labels`) it is train.txt's pictures, or without one all that are not
in test.txt.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from ml.datasets.class_lists import read_classes, read_palette
from ml.datasets.listing import MASK_SUFFIXES, PHOTO_SUFFIXES, list_files
from ml.datasets.mask_labels import labels_of
from ml.datasets.photos import PhotoFiles
from ml.datasets.protocol import NoSuchPart
from ml.datasets.split_lists import read_list, stem_of_line
from ml.images.label_maps import open_mask

SHOWN = 3


class OwnFolder(PhotoFiles):
    """A part of a user's folder; see `protocol.LabelledPhotos` for what it offers."""

    official = None
    hint = "put photographs into images/ and a mask of the same stem for each into masks/"

    def __init__(
        self, root: Path, part: str, images: str | Path = "images", masks: str | Path = "masks"
    ):
        """images, masks: where they are, below the root or anywhere."""
        super().__init__(root, part)
        self.images, self.masks = self.root / images, self.root / masks
        self.label_hint = (
            f"In {self.masks} write label n for the class of line n of classes.txt (a mask"
            " of one class holds 0 and 1), or list `255 255 255 <class>` in palette.txt instead"
        )
        for place in (self.images, self.masks):
            if not place.is_dir():
                raise ValueError(
                    f"{self.root} is not a labelled folder: no {place.name}/ in it; "
                    f"{self.hint}, and write classes.txt (or bring the layout of VOC, COCO, YOLO, "
                    "the Hugging Face hub or WebDataset: docs/own-labels.md)"
                )
        if part == "train" and not (self.root / "train.txt").is_file():
            raise NoSuchPart("the folder has no train.txt: nothing to train a real bound on")
        self.colours: dict[tuple[int, int, int], int] = {}
        self.names = self._classes()
        self._photos, skipped = list_files(self.images, PHOTO_SUFFIXES)
        self._masks, more = list_files(self.masks, MASK_SUFFIXES)
        self.skipped = skipped + more

    def _classes(self) -> dict[int, str]:
        classes, palette = self.root / "classes.txt", self.root / "palette.txt"
        if classes.is_file() == palette.is_file():
            raise ValueError(
                f"{self.root}: expected either classes.txt (one class a line) or "
                "palette.txt (`128 0 0 forklift` a line), found "
                f"{'both' if classes.is_file() else 'neither'}; without it nobody "
                "knows what the labels mean"
            )
        if classes.is_file():
            return read_classes(classes)
        names, self.colours = read_palette(palette)
        return names

    def _list(self, name: str) -> list[str] | None:
        file = self.root / f"{name}.txt"
        return read_list(file, self.title, stem_of_line) if file.is_file() else None

    @cached_property
    def keys(self) -> tuple[str, ...]:
        test, train = self._list("test"), self._list("train") or []
        if both := sorted(set(test or []) & set(train)):
            raise ValueError(
                f"{self.root}: {len(both)} pictures are in test.txt and train.txt, "
                f"first {both[0]!r}; a picture is for one of them"
            )
        if self.part == "train" or (self.part == "labels" and train):
            keys = set(train)
        elif self.part == "labels":
            keys = (set(self._photos) | set(self._masks)) - set(test or [])
        elif test is not None:
            keys = set(test)
        else:
            keys = (set(self._photos) | set(self._masks)) - set(train)
        self._require_pairs(keys)
        return tuple(sorted(keys))

    def _require_pairs(self, keys: set[str]) -> None:
        """Each key has a picture and a mask, else something that the user sees is left out."""
        for found, folder, what in (
            (self._photos, "images", "photograph"),
            (self._masks, "masks", "mask"),
        ):
            if missing := sorted(keys - set(found)):
                named = ", ".join(map(repr, missing[:SHOWN]))
                raise ValueError(
                    f"{self.title}: {len(missing)} of {len(keys)} have no {what} in {folder}/, "
                    f"first {named} (it has e.g. {', '.join(map(repr, sorted(found)[:SHOWN]))}); "
                    "expected a photograph and a mask of one stem each. Add them, or name the "
                    "pictures to use in test.txt and train.txt"
                )

    def photo(self, key: str) -> Path:
        return self._photos[key]

    def mask(self, key: str) -> Path:
        """The file of a picture's labels."""
        return self._masks[key]

    def truth(self, key: str) -> np.ndarray:
        return labels_of(open_mask(self.mask(key)), self.names, self.colours)

    def label_files(self) -> list[Path]:
        lists = [self.root / f"{name}.txt" for name in ("classes", "palette", "test", "train")]
        return [path for path in lists if path.is_file()] + [self.mask(key) for key in self.keys]
