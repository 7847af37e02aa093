"""Writing files so that a half-written one is never seen under its final name, and reading back
what may be damaged.

A folder is replaced only when the new one is complete; a kill between the two renames is repaired
by the next `settle` or write. A folder is not replaced if that would lose a file that the new one
lacks.
"""

import errno
import functools
import glob
import hashlib
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, overload

from ml.errors import shown, unwritten
from ml.store import objects
from ml.store.creation import create
from ml.store.places import is_remote

Value = TypeVar("Value")
Fields: TypeAlias = Mapping[str, type | tuple[type, ...]]
"""Of a JSON object: which fields it must have, and their types."""
MANY = 1000
"""Files of a folder, from which on one call for the whole disk flushes them."""
NO_FILE = (errno.EISDIR, errno.ENOTDIR, errno.ELOOP)
"""What reading meets where something else stands in a file's place."""
HOST = socket.gethostname().replace("/", "-")


class Damaged(ValueError):
    """A file that this program wrote is damaged: edited, cut off, or of other software."""


@contextmanager
def atomic(path: Path, also: str = "", taken: str = "") -> Iterator[Path]:
    """Yields a temporary path in the same folder; it takes `path`'s name when the block ends well.

    The block may make a file or a folder. An existing folder is replaced when everything in it is
    in the new one too, or matches the pattern `also`; else ValueError: it belongs to somebody. With
    `taken` nothing is replaced: it is the text of the ValueError for what stands there at the end.
    After an exception the temporary one is removed and `path` is as it was; that of a full or
    read-only disk names `path`. On an object store it is a local one, uploaded at the end.
    """
    if is_remote(path):
        with objects.uploaded(path) as local:
            yield local
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear(path)
    temporary = path.with_name(f".{path.name}.{HOST}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        if temporary.is_dir() and not taken:
            settle(path)
            _refuse_others(path, temporary, also)
            replace_folder(temporary, path)
        else:
            create(temporary, path, taken) if taken else os.replace(temporary, path)
            _sync_one(path.parent)
    except BaseException as error:
        remove(temporary)
        if isinstance(error, Exception) and (told := unwritten(error, path)) is not error:
            raise told from error
        raise


def _clear(path: Path) -> None:
    """Removes half-written files of `path` that dead processes of this machine left, or an earlier
    process with our id."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{glob.escape(HOST)}.*.tmp"):
        number = left.name.split(".")[-2]
        if number.isdigit() and (int(number) == os.getpid() or not alive(int(number))):
            remove(left)


def alive(process: int) -> bool:
    """Whether a process with this id runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def remove(path: Path) -> None:
    """Deletes a file, a folder or a link (not its target), if there is one."""
    if is_remote(path):
        objects.delete(path)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _refuse_others(path: Path, new: Path, also: str) -> None:
    if not path.is_dir():
        return
    others = sorted(
        entry.name
        for entry in path.iterdir()
        if not os.path.lexists(new / entry.name) and not (also and entry.match(also))
    )
    if others:
        raise ValueError(
            f"{path} holds {', '.join(others[:3])}{' ...' if others[3:] else ''}, "
            "which would be deleted: expected no folder there, or an earlier one of "
            "the same kind. Move it away, or choose another place"
        )


def replace_folder(new: Path, path: Path) -> None:
    """Renames the folder `new` to `path`; the old folder is deleted afterwards.

    Raises ValueError when a file or a link stands there.
    """
    settle(path)
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        kind = "symbolic link" if path.is_symlink() else "file"
        raise ValueError(
            f"{path} is a {kind}, expected a folder or nothing: move it away (to keep "
            "data elsewhere, link the folder `data`)"
        )
    aside = aside_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        os.rename(path, aside)
    try:
        os.rename(new, path)
    except OSError:
        settle(path)
        raise
    _sync_one(path.parent)
    settle(path)


def settle(path: Path) -> None:
    """Completes a `replace_folder` that was killed: the old folder is restored unless the new one
    is in its place. Only for the holder of the folder's lock."""
    if is_remote(path):
        return
    aside = aside_of(path)
    if not os.path.lexists(aside):
        return
    if aside.is_symlink() or not aside.is_dir():
        raise ValueError(
            f"{aside} is in the way: a folder that is replaced is kept there for a "
            "moment, and this is none. Move it elsewhere"
        )
    if os.path.lexists(path):
        remove(aside)
    else:
        os.rename(aside, path)


def aside_of(path: Path) -> Path:
    """Where `replace_folder` keeps the old folder until the new one is in its place."""
    return path.with_name(f".{path.name}.replaced")


def sync(path: Path) -> None:
    """Flushes a file, or a folder with its content, to the disk."""
    if path.is_dir():
        below = walk(path)
        if sys.platform == "linux" and len(list(islice(below, MANY))) == MANY:
            os.sync()  # waits for the whole disk there: sooner than for thousands of files in turn
            return
        for each in walk(path):
            _sync_one(each)
    _sync_one(path)


def walk(folder: Path) -> Iterator[Path]:
    """Everything below a folder, links not followed. No list of it is made, as rglob does, and a
    folder that can't be opened raises its OSError, where rglob goes on."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                yield from walk(Path(entry.path))


def _sync_one(path: Path) -> None:
    if not (path.is_file() or path.is_dir()):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # some file systems do not sync folders
            raise
    finally:
        os.close(handle)


def write_json(path: Path, value: object) -> None:
    """JSON with two-space indent and sorted keys, atomically; equal values give equal bytes."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


@overload
def read_json(path: Path, expected: type[Value]) -> Value | None: ...


@overload
def read_json(path: Path, expected: Fields) -> dict[str, Any] | None: ...


def read_json(path: Path, expected: type[Value] | Fields) -> Value | dict[str, Any] | None:
    """What `write_json` left: a value of the type, or an object with at least these fields.

    None when there is no file. Raises Damaged naming the file and what is wrong with it; OSError
    for one that could not be read this time, which says nothing about what is in it.
    """
    try:
        value: Any = json.loads(objects.read(path).decode("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        if is_remote(path) and isinstance(error, OSError):
            raise
        if isinstance(error, OSError) and error.errno not in NO_FILE:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise Damaged(
            f"{path} can't be read as JSON ({error}): it was cut off or edited"
        ) from error
    if isinstance(expected, type):
        wrong = _wrong({"value": value}, {"value": expected})
    else:
        wrong = _wrong(value, expected)
    if wrong:
        raise Damaged(f"{path}: {wrong}: it was edited or damaged")
    checked: Value | dict[str, Any] = value
    return checked


def _wrong(value: object, fields: Fields) -> str:
    if not isinstance(value, dict):
        return f"expected an object with {', '.join(fields)}, got {type(value).__name__}"
    for name, kind in fields.items():
        if name not in value:
            return f"expected the field {name!r}, got {sorted(value)}"
        flag = isinstance(value[name], bool) and kind is not bool  # True is an int to Python
        if flag or not isinstance(value[name], kind):
            return f"{name}: unexpected {value[name]!r}"
    return ""


@overload
def read_note(path: Path, expected: type[Value]) -> Value | None: ...


@overload
def read_note(path: Path, expected: Fields) -> dict[str, Any] | None: ...


def read_note(path: Path, expected: type[Value] | Fields) -> Value | dict[str, Any] | None:
    """`read_json` for what can be made again: a damaged file counts as none, with a warning."""
    try:
        return read_json(path, expected)
    except Damaged as error:
        say(f"{error}; going on without it")
        return None


@functools.cache
def say(text: str) -> None:
    """A warning on stderr, once for each process and text."""
    print(f"warning: {shown(text)}", file=sys.stderr, flush=True)


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    if is_remote(path):
        return objects.digest(path)
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Hex sha256 of plain data, the same for equal values whatever their key order.

    A value has the same digest before and after a round trip through JSON.
    """
    plain = json.loads(json.dumps(value))  # numbers as keys become text, which sorts otherwise
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
