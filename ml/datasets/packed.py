"""Pictures and label maps that lie as encoded bytes in larger files: Parquet of the Hugging Face
hub, tar files of WebDataset. Not here: which bytes (`own_hf`, `own_webdataset`)."""

import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ml.datasets.class_lists import BACKGROUND, MOST
from ml.datasets.mask_labels import labels_of
from ml.datasets.photos import PhotoFiles
from ml.images.arrays import Picture
from ml.images.label_maps import open_mask
from ml.images.photographs import Size, load_photo, picture_size

Content = Literal["picture", "label map"]
NUMBERED = re.compile(r"((.*)-\d{5}-of-(\d{5}))(-[0-9a-f]+)?")
"""Stem of one file of several; some versions of `datasets` add a hash."""
SHOWN = 3


class PackedFiles(PhotoFiles):
    """Base class: a key is the name of one picture in its file."""

    official = None
    label_hint = "Write label n for the n-th class into the label maps"
    files: list[Path]

    @abstractmethod
    def place(self, key: str) -> Path:
        """The file that holds a picture."""

    @abstractmethod
    def content(self, key: str, what: Content) -> bytes:
        """The bytes of a picture, or of its label map."""

    @abstractmethod
    def name_files(self) -> list[Path]:
        """Files beside the others that name the classes."""

    def photo(self, key: str) -> Path:
        return self.place(key)

    def picture(self, key: str) -> tuple[bytes, Picture]:
        return load_photo(self.content(key, "picture"), self._named(key))

    def size(self, key: str) -> Size:
        return picture_size(self.content(key, "picture"), self._named(key))

    def truth(self, key: str) -> np.ndarray:
        data = self.content(key, "label map")
        mask = open_mask(data, f"{self._named(key)}, its label map")
        return labels_of(mask, self.names, {})

    def _named(self, key: str) -> str:
        return f"{self.place(key)}, {key}"

    def label_files(self) -> list[Path]:
        return [*self.files, *self.name_files()]

    def photo_files(self) -> list[Path]:
        return self.files


def require_whole(files: Sequence[Path]) -> None:
    """ValueError unless all files of a `train-00000-of-00002` are there, each once: what is left of
    a download would be used as if it were everything."""
    sets: dict[tuple[Path, str], list[str]] = {}
    for path in files:
        if match := NUMBERED.fullmatch(path.stem):
            sets.setdefault((path.parent, match[2]), []).append(match[1])
    for (folder, prefix), found in sets.items():
        count = max(name[-5:] for name in found)
        wanted = [f"{prefix}-{number:05d}-of-{count}" for number in range(int(count))]
        counted = Counter(found)
        if missing := [name for name in wanted if name not in counted]:
            raise ValueError(
                f"{folder}: {len(missing)} of {len(wanted)} files {prefix}-*-of-{count} are "
                f"missing, first {', '.join(missing[:SHOWN])}; expected all. Get them, or take "
                f"-of-{count} out of the others' names if they are what is meant"
            )
        if odd := sorted(counted - Counter(wanted)):
            raise ValueError(
                f"{folder}: {odd[0]} is there twice, or of another set than {prefix}-*-of-{count}; "
                "expected the files of one set. Move the others away"
            )


def numbered(names: Mapping[int, object], place: object) -> dict[int, str]:
    """label -> class, of a list in which label 0 is the background. ValueError for any other."""
    texts = {label: name for label, name in names.items() if isinstance(name, str) and name.strip()}
    if str(texts.pop(0, "background")).casefold() not in BACKGROUND:
        raise ValueError(
            f"{place}: label 0 is {names[0]!r}; expected `background`, and classes from 1 on"
        )
    wrong = len(texts) + (0 in names) != len(names) or len(set(texts.values())) != len(texts)
    if wrong or not texts or not all(0 < label <= MOST for label in texts):
        raise ValueError(
            f"{place}: expected 1 to {MOST} different class names, labels 1 and on, got "
            f"{dict(names)!r:.100}"
        )
    return texts
