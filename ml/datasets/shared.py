"""What every source of labelled photographs has, what is checked, and how labels become ours.

Here: the protocol, the checks, the digest, reading one picture at a time. Not here: any layout on
disk, which is the business of the source's own module.
"""

import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol

import numpy as np
from tqdm import tqdm

from ml.images.overlays import IGNORED
from ml.images.photographs import load_photo, picture_size
from ml.store.files import sha256_file, sha256_json
from ml.store.reading import read_text
from ml.words.spellings import canonical
from ml.words.vocabulary import Vocabulary

SHOWN = 3  # missing files named in an error
ALIKE, SHORTEST = 0.85, 5  # pallett is pallet, forklifts forklift; cart is no car
READER = 2
"""Raised when the same files are read as something else, so that what was made of them is made
again. 2: orientation, depth, alpha and colour profile are honoured."""


class NoSuchPart(ValueError):
    """The source is sound but has no such part: a user's folder without training pictures."""


class LabelledPhotos(Protocol):
    """One part (test or train) of a data set on disk.

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

    @property
    def keys(self) -> Sequence[str]:
        """Of all pictures, sorted."""

    def photo(self, key: str) -> Path:
        """The picture's file."""

    def labelled(self, key: str) -> tuple[tuple[int, int], set[int]]:
        """(height, width) of the labels, and which there are. ValueError for labels that break
        the layout."""

    def truth(self, key: str) -> np.ndarray:
        """Label map uint8 (H,W) in the data set's labels."""

    def label_files(self) -> Sequence[Path]:
        """Lists, masks and annotations: every file that decides on labels."""

    def photo_files(self) -> Sequence[Path]:
        """Files of the part's pictures, without reading annotations."""


@dataclass(frozen=True, eq=False)
class Sample:
    """data: the file's bytes where they decode to RGB, else a PNG · image: uint8 (H,W,3) RGB ·
    label: uint8 (H,W) in the vocabulary's labels · entities: its classes in the label map."""

    key: str
    data: bytes
    image: np.ndarray
    label: np.ndarray
    entities: tuple[str, ...]


def check(
    photos: LabelledPhotos, keys: Sequence[str], subset: str, vocabulary: Vocabulary | None = None
) -> None:
    """Everything that must hold before work starts: ValueError says which file breaks it.

    The number of pictures (subset official), that every picture of the part is there, and of
    `keys` also that picture and labels are of one size, the labels are the data set's, and some
    pixel is of a class (of the vocabulary, where one is given).
    """
    if vocabulary is not None:
        class_table(photos, vocabulary)  # raises before the pictures are looked at, one by one
        if photos.official is None:
            _refuse_misspelt(photos, vocabulary)
    found = len(photos.keys)
    if found == 0:
        raise ValueError(f"{photos.title}: no picture is listed; {photos.hint}")
    if subset == "official" and photos.official is not None and found != photos.official:
        raise ValueError(
            f"{photos.title}: expected the official {photos.official} pictures, found {found}; "
            f"{photos.hint}, or set benchmark.subset: any to go on with these, which every place "
            "that names the benchmark then says"
        )
    require_files([photos.photo(key) for key in photos.keys], photos.title, "pictures")
    if photos.skipped:
        named = ", ".join(photos.skipped[:SHOWN])
        print(
            f"{photos.title}: {len(photos.skipped)} files that a system left there are skipped: "
            f"{named}",
            file=sys.stderr,
        )
    seen: set[int] = set()
    unlabelled = []
    for key in tqdm(keys, desc=f"checking {photos.title}", unit="picture"):
        size, labels = photos.labelled(key)
        _require_one_size(photos, key, size)
        seen.update(labels)
        unlabelled += [key] if IGNORED in labels and labels <= {0, IGNORED} else []
    names = photos.names if vocabulary is None else matches(photos.names, vocabulary)
    if not set(names) & seen:
        raise ValueError(f"{photos.title}: {_nothing_labelled(photos, seen, list(names.values()))}")
    if unlabelled and photos.official is None:
        print(
            f"{photos.title}: {len(unlabelled)} of {len(keys)} label maps hold {IGNORED} "
            f"(ignored) and no class, first {unlabelled[0]!r}",
            file=sys.stderr,
        )


def _refuse_misspelt(photos: LabelledPhotos, vocabulary: Vocabulary) -> None:
    """ValueError for a class of a user's data that is all but a class of the vocabulary that the
    data lacks: its pixels would be ignored. Says which other classes are."""
    known = matches(photos.names, vocabulary)
    ignored = [name for label, name in photos.names.items() if label not in known]
    missing = {_known_as(name): name for name in set(vocabulary.classes) - set(known.values())}
    for name in ignored:
        close = get_close_matches(_known_as(name), missing, 1, ALIKE)
        if close and len(name) >= SHORTEST:
            raise ValueError(
                f"{photos.title}: its class {name!r} is none of vocabulary {vocabulary.name!r}, "
                f"whose {missing[close[0]]!r} it does not label. If they are one, write it the "
                f"same way in both; if not, give its pixels label {IGNORED} and take its name out"
            )
    if ignored:
        print(
            f"{photos.title}: not in the vocabulary, so ignored ({IGNORED}): "
            f"{', '.join(map(repr, ignored))}",
            file=sys.stderr,
        )


def _require_one_size(photos: LabelledPhotos, key: str, expected: tuple[int, int]) -> None:
    path, (height, width) = photos.photo(key), expected
    size = picture_size(path)
    if (size.height, size.width) == expected:
        return
    why = (
        "Was one of the two resized, or turned by its EXIF orientation? Store both as they are "
        "shown"
    )
    if size.orientation > 1 and (size.width, size.height) == expected:
        why = (
            f"The picture is stored {width}x{height} with the EXIF orientation "
            f"{size.orientation}, and its labels were made without turning it: turn both, or "
            "store the picture without that flag"
        )
    raise ValueError(
        f"{photos.title}: {path} is {size.width}x{size.height} pixels, its labels "
        f"{width}x{height}; expected one size. {why}"
    )


def _nothing_labelled(photos: LabelledPhotos, seen: set[int], names: Sequence[str]) -> str:
    """Why no score can come of pictures without one pixel of a class."""
    holds = sorted(seen & set(photos.names))
    if holds:
        others = ", ".join(photos.names[label] for label in holds[:8])
        return (
            f"no pixel is of a class of the vocabulary ({', '.join(names[:8])}); the labels "
            f"are of {others}. Name those in the vocabulary, or bring pictures of its classes"
        )
    if IGNORED in seen:
        return (
            'its labels are 0 and 255 alone, and 255 means "ignored", no class: not one '
            f"labelled pixel would be left. {photos.label_hint}"
        )
    return (
        f"not one pixel is labelled with a class: expected some of {', '.join(names[:8])}. Are "
        "the masks empty?"
    )


def described(photos: LabelledPhotos) -> str:
    """The part's name, and that it is not whole where it is not: nobody may take a score on some
    of the pictures for one on the official benchmark."""
    found = len(photos.keys)
    if photos.official in (None, found):
        return photos.title
    return f"a part of {photos.title} ({found} of {photos.official} pictures), not the official set"


def require_files(files: Sequence[Path], title: str, what: str) -> None:
    """ValueError naming the first of the files that are not there."""
    missing = [path for path in files if not path.is_file()]
    if missing:
        named = ", ".join(map(str, missing[:SHOWN]))
        raise ValueError(
            f"{title}: {len(missing)} of {len(files)} {what} are missing, first "
            f"{named}; unpack the archive again, it may have been cut off"
        )


def matches(names: Mapping[int, str], vocabulary: Vocabulary) -> dict[int, str]:
    """Label of the data set -> the vocabulary's class, for classes that both have.

    Names match by VOC's and COCO's spellings (`canonical`) and whatever their case: TV is
    tvmonitor. Raises ValueError when two classes of the vocabulary are one class of the data set.
    """
    ours: dict[str, str] = {}
    for name in vocabulary.classes:
        if ours.setdefault(_known_as(name), name) != name:
            raise ValueError(
                f"vocabulary {vocabulary.name!r}: {ours[_known_as(name)]!r} and "
                f"{name!r} are one class, {_known_as(name)}; keep one of them"
            )
    return {
        label: ours[_known_as(name)] for label, name in names.items() if _known_as(name) in ours
    }


def _known_as(name: str) -> str:
    return canonical(unicodedata.normalize("NFC", name).casefold())


def labelled_classes(photos: LabelledPhotos, vocabulary: Vocabulary) -> tuple[str, ...]:
    """The vocabulary's classes that the data set has labels of, in label order."""
    known = set(matches(photos.names, vocabulary).values())
    return tuple(name for name in vocabulary.classes if name in known)


def class_table(photos: LabelledPhotos, vocabulary: Vocabulary) -> np.ndarray:
    """uint8 (256,): the data set's label -> the vocabulary's. 0 stays 0, 255 stays 255.

    A class that the vocabulary does not list becomes 255, as in the drawn world: it is in the
    picture, so calling it background would punish a segmenter for seeing it. ValueError when the
    two share no class.
    """
    known = matches(photos.names, vocabulary)
    if not known:
        raise ValueError(
            f"vocabulary {vocabulary.name!r} lists none of the classes of {photos.title}: expected "
            f"some of {', '.join(photos.names.values())}; got {', '.join(vocabulary.classes)}"
        )
    table = np.full(256, IGNORED, np.uint8)
    table[0] = 0
    for label, name in known.items():
        table[label] = vocabulary.label(name)
    return table


def read(photos: LabelledPhotos, keys: Sequence[str], vocabulary: Vocabulary) -> Iterator[Sample]:
    """The pictures of `keys` in that order, decoded one at a time."""
    table = class_table(photos, vocabulary)
    for key in keys:
        data, image = load_photo(photos.photo(key))
        label = table[photos.truth(key)]
        present = np.unique(label).tolist()
        yield Sample(
            key,
            data,
            image,
            label,
            tuple(name for name in vocabulary.classes if vocabulary.label(name) in present),
        )


def digest(photos: LabelledPhotos) -> str:
    """Hex sha256 that names this copy of the data, wherever it lies.

    It covers the bytes of everything that labels come from, and of the pictures names and sizes:
    reading 20 GB at every start would take minutes. The benchmark's shards keep the pictures'
    bytes, so what was measured on is in their own digests.
    """
    files, pictures = photos.label_files(), photos.photo_files()
    require_files(files, photos.title, "label files")
    require_files(pictures, photos.title, "pictures")
    return sha256_json(
        {
            "reader": READER,
            "title": photos.title,
            "labels": [[_name(path), sha256_file(path)] for path in files],
            "photos": [[path.name, path.stat().st_size] for path in pictures],
        }
    )


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def stem_of_first(line: str) -> str:
    """The key of "2007_000032", or of "/JPEGImages/2007_000032.jpg /Masks/2007_000032.png"."""
    return Path(line.split()[0]).stem


def read_list(path: Path, title: str, key_of: Callable[[str], str] = stem_of_first) -> list[str]:
    """Keys of a split file, one a line. ValueError for a missing file or a key listed twice."""
    if not path.is_file():
        raise ValueError(f"{title}: no split file {path}; unpack the data set's whole archive")
    lines = read_text(path).splitlines()
    keys = [key_of(line.strip()) for line in lines if line.strip()]
    if not keys:
        raise ValueError(f"{path} lists no picture; expected one a line, or no such file")
    repeated = sorted(key for key, count in Counter(keys).items() if count > 1)
    if repeated:
        raise ValueError(
            f"{path} lists {repeated[0]!r} more than once ({len(repeated)} keys): "
            "expected each picture once; get the file again"
        )
    return keys


def require_labels(path: Path, labels: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
    """The label map uint8 (H,W), after checking that it holds known labels, 0 and 255 only."""
    if labels.ndim != 2:
        raise ValueError(f"{path}: expected a label map (H,W), got {labels.shape}")
    strange = sorted(set(np.unique(labels).tolist()) - {0, IGNORED, *names})
    if strange:
        raise ValueError(
            f"{path} holds the labels {strange[:8]}; expected 0 (background), 255 "
            f"(ignored) and 1..{max(names)} ({len(names)} classes). Is it a mask of "
            "another data set, or of instances?"
        )
    return labels.astype(np.uint8)
