"""What must hold of labelled photographs before any work: counts, files, sizes, labels.

Not here: the layouts on disk, or what a picture file may hold (`ml.images.photographs`,
`ml.images.label_maps`).
"""

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ml.datasets.matching import class_table, known_as, matches
from ml.datasets.protocol import LabelledPhotos
from ml.errors import shown
from ml.images.overlays import IGNORED
from ml.words.vocabulary import Vocabulary

SHOWN = 3  # missing files named in an error
ALIKE, SHORTEST = 0.85, 5  # pallett is pallet, forklifts forklift; cart is no car


def check_photos(
    photos: LabelledPhotos, keys: Sequence[str], subset: str, vocabulary: Vocabulary | None = None
) -> None:
    """Raises ValueError, with the file that is at fault, unless the photographs may be used.

    Checked are the number of pictures (subset official), that every picture of the part is there,
    and of `keys` also that picture and labels are of one size, the labels are the data set's, and
    some pixel is of a class (of the vocabulary, where one is given).
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
            shown(
                f"{photos.title}: {len(photos.skipped)} files that a system left there are "
                f"skipped: {named}"
            ),
            file=sys.stderr,
        )
    seen: set[int] = set()
    unlabelled = []
    for key in tqdm(keys, desc=shown(f"checking {photos.title}"), unit="picture"):
        size, labels = photos.labelled(key)
        _require_one_size(photos, key, size)
        seen.update(labels)
        unlabelled += [key] if IGNORED in labels and labels <= {0, IGNORED} else []
    names = photos.names if vocabulary is None else matches(photos.names, vocabulary)
    if not set(names) & seen:
        raise ValueError(f"{photos.title}: {_nothing_labelled(photos, seen, list(names.values()))}")
    if unlabelled and photos.official is None:
        print(
            shown(
                f"{photos.title}: {len(unlabelled)} of {len(keys)} label maps hold {IGNORED} "
                f"(ignored) and no class, first {unlabelled[0]!r}"
            ),
            file=sys.stderr,
        )


def _refuse_misspelt(photos: LabelledPhotos, vocabulary: Vocabulary) -> None:
    """ValueError for a class of a user's data whose name is nearly that of a vocabulary class that
    the data lacks: its pixels would be ignored. Says which other classes are."""
    known = matches(photos.names, vocabulary)
    ignored = [name for label, name in photos.names.items() if label not in known]
    missing = {known_as(name): name for name in set(vocabulary.classes) - set(known.values())}
    for name in ignored:
        close = get_close_matches(known_as(name), missing, 1, ALIKE)
        if close and len(name) >= SHORTEST:
            raise ValueError(
                f"{photos.title}: its class {name!r} is none of vocabulary {vocabulary.name!r}, "
                f"whose {missing[close[0]]!r} it does not label. If they are one, write it the "
                f"same way in both; if not, give its pixels label {IGNORED} and take its name out"
            )
    if ignored:
        print(
            shown(
                f"{photos.title}: not in the vocabulary, so ignored ({IGNORED}): "
                f"{', '.join(map(repr, ignored))}"
            ),
            file=sys.stderr,
        )


def _require_one_size(photos: LabelledPhotos, key: str, expected: tuple[int, int]) -> None:
    path, (height, width) = photos.photo(key), expected
    size = photos.size(key)
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
    """The error for pictures without one pixel of a class: there is nothing to score."""
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


def require_files(files: Sequence[Path], title: str, what: str) -> None:
    """ValueError naming the first of the files that are not there."""
    missing = [path for path in files if not path.is_file()]
    if missing:
        named = ", ".join(map(str, missing[:SHOWN]))
        raise ValueError(
            f"{title}: {len(missing)} of {len(files)} {what} are missing, first "
            f"{named}; unpack the archive again, it may have been cut off"
        )


def require_labels(path: Path | str, labels: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
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
