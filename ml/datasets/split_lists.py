"""Lists of pictures in text files, as data sets publish their splits."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from ml.store.reading import read_text


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
