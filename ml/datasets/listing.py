"""Which files of a folder are a user's pictures, and which an operating system left there.

Not here: what is in the files (`ml.images.photographs`, `ml.images.label_maps`).
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

PHOTO_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".webp",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
)
MASK_SUFFIXES = (".png", ".tif", ".tiff")
"""By `ml.images.photographs.PHOTO_FORMATS` and `ml.images.label_maps.MASK_FORMATS`."""
JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}
"""What systems leave beside pictures, in lower case; with them everything that starts with a dot
(macOS writes ._x.jpg beside x.jpg)."""


def list_files(folder: Path, suffixes: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """(the folder's files by stem, sorted; names of what systems left there and is skipped).

    Stems are in Unicode's composed form: macOS writes "é" as two characters. Raises ValueError for
    two files of one stem, and for any other file: it would be left out silently.
    """
    found: dict[str, Path] = {}
    skipped = []
    for path in sorted(folder.iterdir()):
        if is_junk(path):
            skipped.append(path.name)
            continue
        if path.is_dir() or path.suffix.lower() not in suffixes:
            raise ValueError(
                f"{path} is {'a folder' if path.is_dir() else 'of another kind'}; "
                f"expected files {', '.join(suffixes)} directly in {folder.name}/. "
                "Convert it, or move it away"
            )
        stem = unicodedata.normalize("NFC", path.stem)
        if stem in found:
            raise ValueError(
                f"{found[stem]} and {path} share the stem {stem!r}: expected one "
                "photograph a mask; rename one"
            )
        found[stem] = path
    return found, skipped


def is_junk(path: Path) -> bool:
    """Whether a system left the file there, not the user."""
    return path.name.startswith(".") or path.name.lower() in JUNK
