"""A small JSON file that people's work goes into, one entry after the other, by any number of
processes: `data/<profile>/<folder>/<file>`. No stage's folder, so that no stage replaces it.

On an object store the folder is a shelf (`ml.store.shelf`): each state of the file is a version
under the number of its writer's lock.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ml.errors import WorkspaceBusy
from ml.store.files import Fields, read_json, write_json
from ml.store.leases import Lease
from ml.store.locks import FolderLock
from ml.store.places import is_remote
from ml.store.shelf import clear, look, version_in
from ml.store.stage_places import lock_of

PATIENCE = 60.0
"""Seconds to wait for others that write the same file, each for a moment."""
Value = dict[str, Any]


def read_kept(data: Path, folder: str, file: str, expected: Fields) -> Value | None:
    """What the file holds, None before there is one. Raises Damaged naming a file that can't be
    read or lacks an expected field."""
    place = data / folder
    if not is_remote(data):
        return read_json(place / file, expected)
    while (current := look(place).current) is not None:
        value = read_json(_file(place, current, file), expected)
        if value is not None or look(place).current == current:
            return value  # else it was replaced, and deleted, just now
    return None


def change_kept(
    data: Path, folder: str, file: str, expected: Fields, change: Callable[[Value | None], Value]
) -> None:
    """Replaces what the file holds by `change` of it, as one step: nobody writes in between.

    Raises Damaged as `read_kept`, WorkspaceBusy when others do not let go of it or this process did
    not answer for so long that others went on (nothing is changed then), PermissionError where
    nothing can be written.
    """
    with lock_of(data, folder) as lock:
        _patiently(lock)
        if isinstance(lock, Lease):
            _replace_version(lock, file, expected, change)
        else:
            write_json(data / folder / file, change(read_kept(data, folder, file, expected)))


def _patiently(lock: FolderLock | Lease) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return lock.write()
        except WorkspaceBusy:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


def _replace_version(
    lock: Lease, file: str, expected: Fields, change: Callable[[Value | None], Value]
) -> None:
    number, place = lock.number or 0, lock.place
    shelf = look(place)
    for earlier in shelf.locks:
        if earlier < number and earlier not in shelf.pointers:
            shelf.void(earlier)  # one that is back too late must not undo what we add
    found = read_kept(lock.data, lock.stage, file, expected)
    write_json(_file(place, number, file), change(found))
    lock.check()
    if not shelf.point(number):
        raise WorkspaceBusy(
            f"{place / file}: another process has taken over while this one did not answer; "
            "nothing was changed: try again"
        )
    lock.check()  # whoever took over may have forgotten our number, and what it forbade, by now
    clear(look(place), number, number)


def _file(place: Path, number: int, file: str) -> Path:
    return version_in(place, number) / place.name / file
