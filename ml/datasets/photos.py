"""What the sources of photographs have in common, whatever their layout: read, checked, named."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ml.datasets.checks import check_photos, require_files
from ml.datasets.matching import class_table, matches
from ml.datasets.protocol import LabelledPhotos, Sample
from ml.images.arrays import Picture
from ml.images.photographs import Size, load_photo, picture_size
from ml.store.files import sha256_file, sha256_json
from ml.words.vocabulary import Vocabulary

READER = 2
"""Raised when the same files are read as something else, so that what was made of them is made
again. 2: orientation, depth, alpha and colour profile are honoured."""
CHOICE = 30_000_000
"""Beside a profile's seed: the stream of random numbers that chooses training pictures."""


class PhotoFiles(LabelledPhotos):
    """Base class of a layout, which adds the parts of `LabelledPhotos` that are about files."""

    sizes_differ = True
    skipped: Sequence[str] = ()

    root: Path

    def __init__(self, root: Path, part: str) -> None:
        self.root, self.part = Path(root), part
        self.title = f"{self.root.name} {part}"

    @property
    @abstractmethod
    def keys(self) -> Sequence[str]:
        """Of all pictures of the part, sorted."""

    def inside(self, path: Path) -> Path:
        """The path itself. Raises ValueError for a link in an unpacked archive that leads to other
        files of this machine; the data set's folders themselves may be links."""
        place = path.resolve()
        if not any(place.is_relative_to(base.resolve()) for base in (path.parent, self.root)):
            raise ValueError(
                f"{path} is a link to {place}, outside of {self.root}; copy the file there"
            )
        return path

    def labelled(self, key: str) -> tuple[tuple[int, int], set[int]]:
        if key not in self._labelled:
            labels = self.truth(key)
            self._labelled[key] = labels.shape, set(np.unique(labels).tolist())
        return self._labelled[key]

    @cached_property
    def _labelled(self) -> dict[str, tuple[tuple[int, int], set[int]]]:
        """What `labelled` has answered: a label map is decoded once for it, however many ask."""
        return {}

    def picture(self, key: str) -> tuple[bytes, Picture]:
        """(bytes that decode to the picture, the picture uint8 (H,W,3)), as a viewer shows it."""
        return load_photo(self.photo(key))

    def size(self, key: str) -> Size:
        """Of a picture, as it is shown."""
        return picture_size(self.photo(key))

    def photo_files(self) -> list[Path]:
        return [self.photo(key) for key in self.keys]

    def labelled_classes(self, vocabulary: Vocabulary) -> tuple[str, ...]:
        known = set(matches(self.names, vocabulary).values())
        return tuple(name for name in vocabulary.classes if name in known)

    def choose(self, counts: Sequence[int], vocabulary: Vocabulary, seed: int) -> list[str]:
        return sample_keys(self.keys, len(counts), seed)

    def check(self, keys: Sequence[str], subset: str, vocabulary: Vocabulary | None = None) -> None:
        check_photos(self, keys, subset, vocabulary)

    def read(self, keys: Sequence[str], vocabulary: Vocabulary) -> Iterator[Sample]:
        table = class_table(self, vocabulary)
        for key in keys:
            data, image = self.picture(key)
            label = table[self.truth(key)]
            present = np.unique(label).tolist()
            entities = tuple(n for n in vocabulary.classes if vocabulary.label(n) in present)
            yield Sample(key, data, image, label, ", ".join(entities), entities)

    def facts(self) -> dict[str, str | int | None]:
        return {
            "name": self.described(),
            "listed": len(self.keys),
            "official_pictures": self.official,
        }

    def described(self) -> str:
        """The part's name; of an incomplete copy also how much of it is there, so that its score
        is not taken for one on the official benchmark."""
        found = len(self.keys)
        if self.official in (None, found):
            return self.title
        return f"a part of {self.title} ({found} of {self.official} pictures), not the official set"

    def digest(self) -> str:
        """Hex sha256 that names this copy of the data, wherever it lies.

        It covers the bytes of everything that labels come from, and of the pictures names and
        sizes: reading 20 GB at every start would take minutes. The benchmark's shards keep the
        pictures' bytes, so what was measured on is in their own digests.
        """
        files, pictures = self.label_files(), self.photo_files()
        require_files(files, self.title, "label files")
        require_files(pictures, self.title, "pictures")
        return sha256_json(
            {
                "reader": READER,
                "title": self.title,
                "labels": [[_name(path), sha256_file(path)] for path in files],
                "photos": [[path.name, path.stat().st_size] for path in pictures],
            }
        )


def sample_keys(keys: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of the keys without repetition, chosen by the seed, in the keys' order; all of them
    where there are fewer."""
    chosen = np.random.default_rng([seed, CHOICE]).permutation(len(keys))[:count]
    return [keys[place] for place in sorted(chosen)]


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"
