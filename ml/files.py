"""Writing files so that a half-written one is never seen under its final name."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; it takes `path`'s name when the block ends well.

    The block may make a file or a folder (an existing folder of that name is replaced). After an
    exception the temporary one is removed and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
        if temporary.is_dir() and path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: object) -> None:
    """JSON with two-space indent and sorted keys, atomically; equal values give equal bytes."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """Hex sha256 of plain data, the same for equal values whatever their key order.

    A value and what comes back of it from a JSON file have the same one.
    """
    plain = json.loads(json.dumps(value))  # numbers as keys become text, which sorts otherwise
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _below(folder: Path, within: tuple[Path, ...]) -> Iterator[Path]:
    """Every file below a folder, through links. within: the real folders on the way to it."""
    if (real := folder.resolve()) in within:
        raise ValueError(f"{folder} is a link to a folder that it lies in: remove it")
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            yield from _below(path, (*within, real))
        elif path.is_file():
            yield path
        elif path.is_symlink() and not path.name.startswith("."):
            raise ValueError(f"{path} is a link to nothing (half a download?): bring the model "
                             "again")


def sha256_folder(folder: Path) -> str:
    """Hex sha256 over the relative names and bytes of every file below a folder.

    Links are followed, to files and to folders, as the hub's cache has them. Raises ValueError if
    the folder does not exist or holds no file, for a link to nothing and for one to a folder that
    it lies in.
    """
    files = sorted(p for p in _below(folder, ()) if not p.name.startswith("."))
    if not files:
        raise ValueError(f"no files below {folder}: expected a model folder there")
    return sha256_json([[p.relative_to(folder).as_posix(), sha256_file(p)] for p in files])
