"""A user's own pictures with Ultralytics' segmentation labels: a polygon a line, and data.yaml.

    data.yaml    names, and for each split its folder of pictures: `train: images/train`
    images/train/x.jpg, labels/train/x.txt    `class x y x y x y ...`, in shares of width and height

Drawn as Ultralytics draws them: corners cut off to whole pixels, the outline included, even-odd.
Where objects overlap the smaller one is on top. A picture without a label file shows nothing.
Beside pictures and label files there may be Ultralytics' caches (*.cache, x.npy), classes.txt and a
README; any other file of these folders, and a label file without a picture, is refused.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ml.datasets.class_lists import MOST
from ml.datasets.listing import PHOTO_SUFFIXES, is_junk
from ml.datasets.own_splits import of_part
from ml.datasets.photos import PhotoFiles
from ml.images.arrays import Masks
from ml.store.reading import read_text, read_yaml

SPLITS = ("train", "val", "test")
BEYOND = 1e-3
"""A corner may lie so far off the picture, by rounding."""
SHOWN = 3


def settings_file(root: Path) -> Path | None:
    """The folder's YAML file with `names`: data.yaml, else the only one that has them."""
    files = [root / "data.yaml", root / "data.yml"]
    if own := next((file for file in files if file.is_file()), None):
        return own
    found = [f for f in sorted(root.glob("*.y*ml")) if not is_junk(f) and _names_in(f)]
    return found[0] if len(found) == 1 else None


def _names_in(file: Path) -> bool:
    values = read_yaml(file)
    return isinstance(values, dict) and "names" in values


class OwnYolo(PhotoFiles):
    """A part of such a folder; see `protocol.LabelledPhotos` for what it offers."""

    official = None
    hint = "name a folder of pictures for each split in data.yaml"
    label_hint = "Write a polygon a line into the pictures' label files"

    def __init__(self, root: Path, part: str):
        super().__init__(root, part)
        file = settings_file(self.root)
        if file is None:
            raise ValueError(f"{self.root} is not in YOLO's layout: expected data.yaml in it")
        self.file = file
        self.values = self._settings()
        self.names = self._names()

    def _settings(self) -> dict[str, Any]:
        values = read_yaml(self.file)
        if not isinstance(values, dict) or not isinstance(values.get("names"), list | dict):
            raise ValueError(f"{self.file}: expected `names:`, a list or {{number: name}}")
        return values

    def _names(self) -> dict[int, str]:
        """Label 1 + class -> name."""
        names = self.values["names"]
        listed = names if isinstance(names, dict) else dict(enumerate(names))
        sound = all(type(k) is int and isinstance(v, str) and v.strip() for k, v in listed.items())
        different = len(set(listed.values())) == len(listed) if sound else False
        if not listed or not different or not all(0 <= number < MOST for number in listed):
            raise ValueError(
                f"{self.file}: names: expected 1 to {MOST} different ones, numbered from 0, got "
                f"{names!r:.80}"
            )
        return {number + 1: name for number, name in listed.items()}

    @cached_property
    def _photos(self) -> dict[str, Path]:
        """Key -> picture of the part; a key is the picture's place below the root."""
        found = [(name, place) for name in SPLITS if (place := self.values.get(name))]
        if not found:
            raise ValueError(f"{self.file}: expected a folder of pictures as train:, val: or test:")
        photos: dict[str, Path] = {}
        for places in of_part(found, self.part, self.title):
            for place in places if isinstance(places, list) else [places]:
                for path in self._pictures(str(place)):
                    photos[path.relative_to(self.root.resolve()).as_posix()] = path
        return photos

    def _pictures(self, place: str) -> list[Path]:
        """The files of one entry: of a folder, or of a text file that lists them."""
        base, root = str(self.values.get("path") or ""), self.root.resolve()
        ways = (root / base / place, root / place, root / place.removeprefix("../"))
        inside = [way.resolve() for way in ways if way.resolve().is_relative_to(root)]
        found = next((way for way in inside if way.exists()), None)
        if found is None:
            raise ValueError(
                f"{self.file}: nothing at {place!r} below {self.root}; expected a folder of "
                "pictures in it. Is it the folder that data.yaml lies in?"
            )
        if found.is_dir():
            return self._of_folder(found)
        lines = [line.strip() for line in read_text(found).splitlines()]
        listed = [found.parent / line for line in lines if line]
        if outside := [path for path in listed if not path.resolve().is_relative_to(root)]:
            raise ValueError(f"{found} names {outside[0]}, which is not below {self.root}")
        return [path.resolve() for path in listed]

    def _of_folder(self, folder: Path) -> list[Path]:
        """A folder's pictures. ValueError for other files beside them or their label files: they
        would be left out silently."""
        files, labels = self._files(folder), self._label_file(folder / "x").parent
        pictures = [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES]
        known = {self.file.resolve(), *pictures, *map(self._label_file, pictures)}
        known |= {path.with_suffix(".npy") for path in pictures}
        more = self._files(labels) if labels != folder else []
        if others := [path for path in files + more if path not in known and not _companion(path)]:
            alone = all(path.suffix == ".txt" for path in others)
            raise ValueError(
                f"{self.title}: {len(others)} files beside its {len(pictures)} pictures are "
                f"{'label files without a picture' if alone else 'of another kind'}, first "
                f"{', '.join(map(str, others[:SHOWN]))}; expected pictures "
                f"({', '.join(PHOTO_SUFFIXES)}) in {folder}, and their label files in {labels}, "
                ".txt of the same stem. Convert them, add what is missing, or move them away"
            )
        return pictures

    def _files(self, folder: Path) -> list[Path]:
        """All that lie in a folder or below it, but for what systems left there."""
        found = []
        for path in sorted(folder.rglob("*")):
            if any(is_junk(Path(part)) for part in path.relative_to(folder).parts):
                self.skipped = [*self.skipped, path.name]
            elif not path.is_dir():
                found.append(path)
        return found

    @cached_property
    def keys(self) -> tuple[str, ...]:
        return tuple(sorted(self._photos))

    def photo(self, key: str) -> Path:
        return self.inside(self._photos[key])

    def label_file(self, key: str) -> Path:
        return self._label_file(self._photos[key])

    def _label_file(self, picture: Path) -> Path:
        """In `labels` beside the last folder `images` of the picture's path below the root."""
        root = self.root.resolve()
        parts = list(picture.relative_to(root).parts)
        places = [place for place, part in enumerate(parts) if part == "images"]
        if places:
            parts[places[-1]] = "labels"
        return root.joinpath(*parts).with_suffix(".txt")

    def truth(self, key: str) -> np.ndarray:
        size = self.size(key)
        label = np.zeros((size.height, size.width), np.uint8)
        file = self.label_file(key)
        lines = read_text(file).splitlines() if file.is_file() else []
        drawn = []
        for number, line in enumerate(lines, start=1):
            if line.strip():
                value, corners = self._polygon(f"{file}, line {number}", line)
                mask = draw_polygon(corners, label.shape)
                drawn.append((-int(mask.sum()), number, mask, value))
        for _, _, mask, value in sorted(drawn, key=lambda item: item[:2]):
            label[mask] = value
        return label

    def _polygon(self, place: str, line: str) -> tuple[int, np.ndarray]:
        """(label, corners float (n,2)) of a line."""
        try:
            first, *rest = line.split()
            number, values = float(first), np.array(rest, np.float64)
        except ValueError as error:
            raise ValueError(f"{place}: {line!r:.60} is no list of numbers ({error})") from error
        label = int(number) + 1 if number.is_integer() else None
        if label not in self.names:
            numbers = {known - 1: name for known, name in self.names.items()}
            raise ValueError(f"{place}: class {first}; expected one of data.yaml's {numbers}")
        if len(values) == 4:
            raise ValueError(
                f"{place}: {line!r:.60} is a box; expected a polygon `class x y x y x y ...`: "
                "labels of boxes teach no mask"
            )
        if len(values) < 6 or len(values) % 2:
            raise ValueError(f"{place}: {len(values)} numbers; expected pairs x y, three or more")
        if not np.isfinite(values).all() or values.min() < -BEYOND or values.max() > 1 + BEYOND:
            raise ValueError(
                f"{place}: numbers from {values.min():g} to {values.max():g}; expected shares of "
                "the picture's width and height, 0 to 1"
            )
        return label, values.reshape(-1, 2).clip(0, 1)

    def label_files(self) -> list[Path]:
        files = [self.label_file(key) for key in self.keys]
        return [self.file, *(file for file in files if file.is_file())]


def _companion(path: Path) -> bool:
    """Whether a file lies beside the others by the habit of some tool, and labels nothing."""
    name = path.name.lower()
    return name == "classes.txt" or name.startswith("readme") or path.suffix == ".cache"


def draw_polygon(corners: np.ndarray, size: tuple[int, ...]) -> Masks:
    """The mask bool (H,W) of a polygon, corners float (n,2) in shares of width and height."""
    points = (corners * (size[1], size[0])).astype(np.int64)
    canvas = Image.new("1", (size[1], size[0]))
    ImageDraw.Draw(canvas).polygon([tuple(point) for point in points.tolist()], fill=1, outline=1)
    return np.array(canvas)
