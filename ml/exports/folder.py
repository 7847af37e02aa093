"""An export's folder: ours or somebody else's, whole or damaged, and replaced as a whole.

`export.json` says what it was made from, `.files.txt` which files it has, a line each with its
size. Both are written last; then the folder takes its place. Nothing here is held in memory by
file, so that a hundred thousand of them are no matter.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml.store.files import atomic, read_json, say, sha256_json, write_json

MARK, LISTING = "export.json", ".files.txt"
_MARK = {"made_by": str, "format": str, "recipe": dict, "facts": dict}
MADE_BY = "words to masks"
CACHES = (".cache", ".npy")
"""Ends of names of what trainers keep beside the files they have read; made again at need."""


def finished(folder: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The facts of the export of this recipe that stands in a folder, whole; else None."""
    mark = _mark(folder)
    if mark is None or sha256_json(mark["recipe"]) != sha256_json(recipe):
        return None
    if problem := next(_damage(folder), None):
        say(f"{problem}: made again")
        return None
    facts: dict[str, Any] = mark["facts"]
    return facts


def refuse_others(folder: Path, recipe: dict[str, Any]) -> None:
    """Raises ValueError for what an export of this recipe may not replace: a folder that is not
    ours, an export in another format, and files that somebody put into one of ours."""
    if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
        return
    mark = _mark(folder)
    if mark is None or folder.is_symlink():
        raise ValueError(
            f"{folder} is in the way: expected nothing there, or an earlier export ({MARK} is the "
            "mark of one). Nothing of it was touched: move it away, or choose another --out"
        )
    if mark["format"] != recipe["format"]:
        raise ValueError(
            f"{folder} holds an export in the format {mark['format']}, not {recipe['format']}: "
            "choose another --out, or move it away"
        )
    if found := _strangers(folder):
        raise ValueError(
            f"{folder} is to be replaced by an export of another set, and holds {found}, which "
            "the earlier one did not make: move it away, or choose another --out"
        )


@contextmanager
def new_export(folder: Path, recipe: dict[str, Any], facts: dict[str, Any]) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `folder` when the block ends well.

    facts: filled in the block. After an exception, or a kill, `folder` is as it was.
    """
    with atomic(folder, also="*") as making:  # `refuse_others` has looked
        making.mkdir()
        yield making
        with (making / LISTING).open("w", encoding="utf-8") as listing:
            for name, size in _files(making):
                listing.write(f"{size} {name}\n")
        write_json(
            making / MARK,
            {"made_by": MADE_BY, "format": recipe["format"], "recipe": recipe, "facts": facts},
        )


def _mark(folder: Path) -> dict[str, Any] | None:
    mark = read_json(folder / MARK, _MARK) if folder.is_dir() else None
    return mark if mark is not None and mark["made_by"] == MADE_BY else None


def _files(folder: Path, below: str = "") -> Iterator[tuple[str, int]]:
    """(relative name, bytes) of every file but the listing and the mark, in no order."""
    with os.scandir(folder / below) as entries:
        for entry in entries:
            name = f"{below}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _files(folder, f"{name}/")
            elif name not in (LISTING, MARK):
                yield name, entry.stat(follow_symlinks=False).st_size


def _listed(folder: Path) -> Iterator[tuple[str, int]]:
    """As `_files`, by the listing."""
    path = folder / LISTING
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            size, _, name = line.rstrip("\n").partition(" ")
            yield name, int(size) if size.isdecimal() else -1


def _damage(folder: Path) -> Iterator[str]:
    """What is missing, or of another size than when it was written, in words."""
    count = 0
    for name, size in _listed(folder):
        count += 1
        try:
            found = (folder / name).stat(follow_symlinks=False).st_size
        except OSError:
            yield f"{folder / name} is missing"
            continue
        if found != size:
            yield f"{folder / name} has {found:,} bytes, and had {size:,}"
    if not count:
        yield f"{folder / LISTING} is missing"


def _strangers(folder: Path) -> str:
    """A file that the listing does not name, "" for none. Caches of trainers do not count."""
    known = {name for name, _ in _listed(folder)}
    found = (name for name, _ in _files(folder))
    return next((n for n in found if n not in known and not n.endswith(CACHES)), "")
