"""What a source of labelled pictures offers, and one picture of it.

The stages know `LabelledPictures` alone. Photographs offer their files, too: `LabelledPhotos`. Not
here: the sources themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ml.images.photographs import Size
from ml.words.vocabulary import Vocabulary


class NoSuchPart(ValueError):
    """The source is sound but has no such part: a user's folder without training pictures."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture with its labels, in the vocabulary's numbers.

    data: PNG or JPEG bytes that decode to `image`; a photograph's own where they can be kept.
    image: uint8 (H,W,3) RGB. label: uint8 (H,W), 0 background, 255 ignored.
    text: what the picture shows, in words. entities: the vocabulary's classes in the label map.
    """

    key: str
    data: bytes
    image: np.ndarray
    label: np.ndarray
    text: str
    entities: tuple[str, ...]


class LabelledPictures(Protocol):
    """One part of a labelled data set: `test`, which is measured on, or `train`.

    sizes_differ: whether its pictures may differ in size from one another.
    """

    sizes_differ: bool

    @property
    def keys(self) -> Sequence[str]:
        """Of all pictures of the part; empty where `choose` makes them up."""

    def labelled_classes(self, vocabulary: Vocabulary) -> tuple[str, ...]:
        """The vocabulary's classes that the data set has labels of, in label order."""

    def choose(self, counts: Sequence[int], vocabulary: Vocabulary, seed: int) -> list[str]:
        """Keys of as many pictures as `counts` has numbers, chosen by the seed; fewer where the
        part is smaller.

        counts: how many objects each picture should show, where the source has that choice.
        Raises ValueError for a class that it cannot show.
        """

    def check(self, keys: Sequence[str], subset: str, vocabulary: Vocabulary | None = None) -> None:
        """Everything that must hold before these pictures are read.

        subset: benchmark.subset, "official" or "any". Raises ValueError where the data or the
        vocabulary is at fault, RuntimeError where drawn scenes are not the published ones.
        """

    def read(self, keys: Sequence[str], vocabulary: Vocabulary) -> Iterator[Sample]:
        """The pictures of `keys` in that order, one at a time. Raises ValueError when the
        vocabulary and the data set share no class."""

    def facts(self) -> dict[str, str | int | None]:
        """What a manifest records of the part: `name`, `listed` (pictures), `official_pictures`;
        nothing for the drawn world, which is always whole."""

    def digest(self) -> str | None:
        """Hex sha256 of the data on disk, wherever it lies; None for a source that reads none."""


class LabelledPhotos(LabelledPictures, Protocol):
    """One part of a data set of photographs on disk.

    title: names it in messages and in the report, "PASCAL VOC 2012 val".
    official: how many pictures the published part has, None for a user's own.
    hint: what to do when the count is not the official one.
    names: label in `truth` -> the data set's own class name; 0 is background, 255 ignored.
    label_hint: what to write instead where masks hold nothing but 0 and 255.
    skipped: names of files in its folders that systems left there.
    """

    title: str
    official: int | None
    hint: str
    label_hint: str
    names: Mapping[int, str]
    skipped: Sequence[str]

    def photo(self, key: str) -> Path:
        """The picture's file."""

    def size(self, key: str) -> Size:
        """Of the picture, as it is shown."""

    def labelled(self, key: str) -> tuple[tuple[int, int], set[int]]:
        """(height, width) of the labels, and which there are. Raises ValueError for labels that
        break the layout."""

    def truth(self, key: str) -> np.ndarray:
        """Label map uint8 (H,W) in the data set's labels."""

    def label_files(self) -> Sequence[Path]:
        """Lists, masks and annotations: every file that decides on labels."""

    def photo_files(self) -> Sequence[Path]:
        """Files of the part's pictures, without reading annotations."""
