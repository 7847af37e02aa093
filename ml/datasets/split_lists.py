"""Lists of pictures in text files, as data sets publish their splits."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Container
from pathlib import Path

from ml.datasets.listing import PHOTO_SUFFIXES
from ml.store.reading import read_text

FLAGS = ("-1", "0", "1")
"""VOC's second column: whether a picture shows a class."""


def stem_of_line(line: str) -> str:
    """The key of "hall 1" or "hall 1.jpg"; names may hold spaces and dots."""
    stem = Path(line).stem if line.lower().endswith(PHOTO_SUFFIXES) else line
    return unicodedata.normalize("NFC", stem)


def stem_of_columns(line: str, known: Container[str] = ()) -> str:
    """The key of "2007_000032", "2007_000032  1", or of "/JPEGImages/2007_000032.jpg
    /Masks/2007_000032.png".

    A line that names one of the known pictures is its name, spaces included: of `hall (1)` the
    first word may be another picture. So may it be where what follows is no column of VOC's.
    """
    first, *others = line.split()
    whole = stem_of_line(Path(line).name)
    if whole in known and not any("/" in word for word in others):
        return whole
    file = first.lower().endswith(PHOTO_SUFFIXES)
    columns = all(word in FLAGS or "/" in word or file for word in others)
    return stem_of_line(Path(first).name) if columns else whole


def read_list(path: Path, title: str, key_of: Callable[[str], str] = stem_of_columns) -> list[str]:
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
