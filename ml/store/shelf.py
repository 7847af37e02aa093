"""A folder on an object store that is replaced as a whole: numbered versions and pointers to them.

    <place>/00000007.lock        who writes version 7, and that it lives (`ml.store.leases`)
    <place>/00000007/<name>/...  the files of version 7; `state/` beside them are notes about it
    <place>/00000007.json        the pointer: version 7 is whole. The highest one counts
    <place>/readers/...          who reads

A pointer is created, never overwritten (a conditional PUT). So whoever was thought dead and comes
back can't harm its successor: it writes under its own number alone, a pointer below the highest is
not followed, and the successor takes the pointers of half-made versions away from it (`void`)
before it touches them. Numbers only rise: the highest lock stays when it is released.
"""

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml.store import objects
from ml.store.files import Damaged, atomic, read_json, settle
from ml.store.places import is_remote

ENTRY = re.compile(r"(\d{8})(\.lock|\.json|/)")
READERS = "readers"
_POINTER = {"version": int, "void": bool}


@dataclass(frozen=True)
class Shelf:
    """What stands at a place, by number."""

    place: Path
    locks: tuple[int, ...]
    pointers: tuple[int, ...]
    versions: tuple[int, ...]
    strays: tuple[str, ...]  # names of what others put there

    @property
    def highest(self) -> int:
        return max((0, *self.locks, *self.pointers, *self.versions))

    @property
    def current(self) -> int | None:
        """The number of the version that is pointed at; None before there is one.

        Raises Damaged for a pointer that can't be read: an older version must not take its place.
        """
        for number in sorted(self.pointers, reverse=True):
            pointer = read_json(self.pointer(number), _POINTER)
            if pointer is not None and not pointer["void"]:
                return number
        return None

    def pointer(self, number: int) -> Path:
        return self.place / f"{number:08d}.json"

    def point(self, number: int) -> bool:
        """Makes a version the current one; False when its pointer was taken away."""
        return self._create(number, False)

    def void(self, number: int) -> bool:
        """Makes sure that a version never becomes current; False when it is, or was."""
        if self._create(number, True):
            return True
        pointer = read_json(self.pointer(number), _POINTER)
        return pointer is None or bool(pointer["void"])

    def _create(self, number: int, void: bool) -> bool:
        content = {"version": number, "void": void, "by": uuid.uuid4().hex}
        return objects.create(self.pointer(number), json.dumps(content).encode())


def lock_in(place: Path, number: int) -> Path:
    return place / f"{number:08d}.lock"


def version_in(place: Path, number: int) -> Path:
    """The folder with a version's files and, beside them, its notes."""
    return place / f"{number:08d}"


def look(place: Path) -> Shelf:
    """One listing of a place."""
    found: dict[str, list[int]] = {".lock": [], ".json": [], "/": []}
    strays = []
    for name in objects.names_in(place):
        if entry := ENTRY.fullmatch(name):
            found[entry[2]].append(int(entry[1]))
        elif name != f"{READERS}/":
            strays.append(name.rstrip("/"))
    locks, pointers, versions = (tuple(numbers) for numbers in found.values())
    return Shelf(place, locks, pointers, versions, tuple(strays))


def files_of(place: Path) -> Path:
    """The folder whose files count at a place: a local one itself, else the current version's."""
    if not is_remote(place):
        return place
    return version_in(place, look(place).current or 0) / place.name  # 0 is nobody's


@contextmanager
def replaced(place: Path) -> Iterator[Path]:
    """Yields a local path; the folder that the block makes there takes `place` as a whole.

    For a folder that one run at a time replaces; stages have `ml.store.successor`.
    """
    if not is_remote(place):
        settle(place)
        with atomic(place) as temporary:
            yield temporary
        return
    shelf = look(place)
    number = shelf.highest + 1
    with objects.uploaded(version_in(place, number) / place.name) as local:
        yield local
    if not shelf.point(number):
        raise Damaged(f"{place} was replaced by another run at the same time: start again")
    clear(shelf, number)


def clear(shelf: Shelf, current: int, writer: int = 0) -> None:
    """Deletes the pointers and versions below the current one, and the locks below the writer's."""
    for number in shelf.pointers:
        if number < current:
            objects.delete(shelf.pointer(number))
    for number in shelf.versions:
        if number < current:
            objects.delete(version_in(shelf.place, number))
    for number in shelf.locks:
        if number < writer:
            objects.delete(lock_in(shelf.place, number))
