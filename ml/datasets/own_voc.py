"""A user's own pictures in the layout of VOC: pictures, palette masks, lists of the splits.

    JPEGImages/    photographs, of any format that is read
    SegmentationClass/    one mask a photograph, of the same stem and size
    ImageSets/Segmentation/{train,val,test}.txt    stems, optional
    labelmap.txt    `forklift:128,0,0::` a line (CVAT's), or classes.txt, labels.txt or
                    class_names.txt (labelme's), one class a line, line n being label n

They lie in the folder, or below it in VOC2012/ or VOCdevkit/VOC2012/, the list in either.
Without one the classes are VOC's twenty, and masks must have VOC's palette.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from ml.datasets.checks import require_labels
from ml.datasets.class_lists import LABELMAP, read_classes, read_palette
from ml.datasets.listing import MASK_SUFFIXES, PHOTO_SUFFIXES, list_files
from ml.datasets.mask_labels import Colour, labels_of
from ml.datasets.own_splits import of_part, split_of
from ml.datasets.photos import PhotoFiles
from ml.datasets.split_lists import read_list, stem_of_columns
from ml.datasets.voc import CLASSES
from ml.datasets.voc import read_palette as read_voc_palette
from ml.images.label_maps import open_mask
from ml.images.overlays import IGNORED, PALETTE

PLACES = (".", "VOC2012", "VOCdevkit/VOC2012")
LISTS = (LABELMAP, "classes.txt", "class_names.txt", "labels.txt")
SHOWN = 3


def home_of(root: Path) -> Path | None:
    """The folder below a root that has the layout's pictures and masks."""
    folders = ("JPEGImages", "SegmentationClass")
    places = [root / place for place in PLACES]
    return next((p for p in places if all((p / name).is_dir() for name in folders)), None)


class OwnVoc(PhotoFiles):
    """A part of such a folder; see `protocol.LabelledPhotos` for what it offers."""

    official = None
    hint = "put photographs into JPEGImages/ and a mask of the same stem into SegmentationClass/"

    def __init__(self, root: Path, part: str):
        super().__init__(root, part)
        home = home_of(self.root)
        if home is None:
            raise ValueError(
                f"{self.root} is not in VOC's layout: expected JPEGImages/ and SegmentationClass/ "
                "in it, in VOC2012/ or in VOCdevkit/VOC2012/ below it"
            )
        self.home = home
        files = [place / name for place in (home, self.root) for name in LISTS]
        self.list = next((file for file in files if file.is_file()), None)
        self.label_hint = f"Write label n for the class of line n of {self.list or 'a list'}"
        self.colours: dict[Colour, int] = {}
        if self.list is None:
            self.names = dict(enumerate(CLASSES, start=1))
        elif self.list.name == LABELMAP:
            self.names, self.colours = read_palette(self.list)
            border: Colour = tuple(int(level) for level in PALETTE[IGNORED])  # type: ignore[assignment]
            self.colours.setdefault(border, IGNORED)
        else:
            self.names = read_classes(self.list)
        self._photos, skipped = list_files(home / "JPEGImages", PHOTO_SUFFIXES)
        self._masks, more = list_files(home / "SegmentationClass", MASK_SUFFIXES)
        self.skipped = skipped + more

    @cached_property
    def _lists(self) -> list[Path]:
        return sorted((self.home / "ImageSets" / "Segmentation").glob("*.txt"))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        if self._lists:
            found = [(split_of(file.stem), file) for file in self._lists]
            files = of_part(found, self.part, self.title)
            keys = {key for file in files for key in read_list(file, self.title, self._key)}
        else:
            (keys,) = of_part([("", set(self._masks))], self.part, self.title)
        for place, name in ((self._photos, "JPEGImages"), (self._masks, "SegmentationClass")):
            if missing := sorted(keys - set(place)):
                raise ValueError(
                    f"{self.title}: {len(missing)} of {len(keys)} have no file in {name}/, first "
                    f"{', '.join(map(repr, missing[:SHOWN]))}; add them, or take their lines out "
                    "of ImageSets/Segmentation"
                )
        return tuple(sorted(keys))

    def _key(self, line: str) -> str:
        return stem_of_columns(line, self._photos)

    def photo(self, key: str) -> Path:
        return self.inside(self._photos[key])

    def mask(self, key: str) -> Path:
        """The file of a picture's labels."""
        return self.inside(self._masks[key])

    def truth(self, key: str) -> np.ndarray:
        path = self.mask(key)
        if self.list is None:
            return require_labels(path, read_voc_palette(path), self.names)
        return labels_of(open_mask(path), self.names, self.colours)

    def label_files(self) -> list[Path]:
        own = [] if self.list is None else [self.list]
        return [*own, *self._lists, *(self.mask(key) for key in self.keys)]
