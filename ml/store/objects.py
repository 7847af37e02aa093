"""What is done with objects of a store beyond pathlib: create once, copy there, bring here.

An object appears whole or not at all (that is how its PUT works), so that a file needs no temporary
name. There is no rename: what must change together is written under a number of its own and pointed
at last (`ml.store.shelf`). Every object that `upload` writes carries the sha256 of its bytes in its
metadata, in the same PUT, so that a check of a finished folder asks for that and reads no pictures.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from ml.store.places import address, is_remote

DIGEST = "sha256"
METADATA = {"s3": "Metadata", "gs": "metadata"}
"""What the option of a PUT that sets an object's metadata is called, by protocol."""
BLOCK = 8 * 2**20
"""Bytes of a request when a file is read from its beginning to its end."""


def names_in(folder: Path) -> list[str]:
    """The names directly below a folder, those of folders with a slash at the end; sorted."""
    place = address(folder)
    try:
        found = place.fs.ls(place.path, detail=True, refresh=True)
    except FileNotFoundError:
        return []
    except PermissionError as error:
        raise PermissionError(
            f"{folder} can't be listed ({error}): the key in use needs the rights to list, read, "
            "write and delete there"
        ) from error
    names = {
        entry["name"].rstrip("/").rpartition("/")[2] + "/" * (entry["type"] == "directory")
        for entry in found
        if _key(entry["name"]) != _key(place.path)
    }
    return sorted(names)


def below(folder: Path) -> list[Path]:
    """Every file below a folder, sorted by its name: of a store in one listing."""
    if not is_remote(folder):
        return sorted(path for path in folder.rglob("*") if path.is_file())
    place = address(folder)
    above = f"{_key(place.path)}/"
    keys = (_key(name) for name in place.fs.find(place.path))
    names = sorted(key.removeprefix(above) for key in keys if key.startswith(above))
    return [folder / name for name in names]


def _key(path: str) -> str:
    return path.strip("/")


def read(path: Path) -> bytes:
    """The bytes of a small file of either kind; of an object in one request, so that it is one
    state of it."""
    if not is_remote(path):
        return path.read_bytes()
    place = address(path)
    return bytes(place.fs.cat_file(place.path))


def create(path: Path, data: bytes) -> bool:
    """Writes an object unless there is one; whether it was written, now or by an attempt whose
    answer was lost."""
    place = address(path)
    try:
        place.fs.pipe_file(place.path, data, mode="create")
    except FileExistsError:
        return read(path) == data
    return True


@contextmanager
def uploaded(path: Path) -> Iterator[Path]:
    """Yields a local path; what the block leaves there, a file or a folder, becomes `path`.

    The files of a folder appear one after the other: for folders that nothing points at yet.
    Nothing is written after an exception.
    """
    with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / path.name
        yield local
        upload(local, path)


@contextmanager
def written(folder: Path) -> Iterator[Path]:
    """A folder to write files in: a local one itself, else one whose files are uploaded at the
    end."""
    if not is_remote(folder):
        yield folder
        return
    with uploaded(folder) as local:
        local.mkdir()
        yield local


def upload(local: Path, path: Path) -> None:
    """A local file, or every file below a folder, to the store."""
    files = [local] if local.is_file() else below(local)
    for file in files:
        target = address(path / file.relative_to(local).as_posix() if file != local else path)
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        option = METADATA.get(target.protocol)
        noted = {option: {DIGEST: digest}} if option else {}
        target.fs.put_file(str(file), target.path, **noted)


@contextmanager
def local_copy(folder: Path) -> Iterator[Path]:
    """A folder for those who need real files: a local one itself, else a copy that is deleted at
    the end of the block."""
    if not is_remote(folder):
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / folder.name
        download(folder, copy)
        yield copy


def download(path: Path, target: Path) -> None:
    """A file, or every file below a folder, of either kind, to a local place."""
    if path.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened(path) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, BLOCK)
        return
    for file in below(path):
        download(file, target / file.relative_to(path).as_posix())


def opened(path: Path, *, whole: bool = True) -> IO[bytes]:
    """A file of either kind, for reading. whole: from beginning to end; else each read is one
    request for exactly its bytes."""
    if not is_remote(path):
        return path.open("rb")
    cache = "readahead" if whole else "none"
    return cast(IO[bytes], address(path).open("rb", cache_type=cache, block_size=BLOCK))


def copy(sources: Iterable[Path], old: Path, new: Path) -> None:
    """Copies objects from below one folder to below another; the store does it, no byte travels."""
    pairs = [(s, new / s.relative_to(old).as_posix()) for s in sources]
    if pairs:
        fs = address(old).fs
        fs.copy([address(s).path for s, _ in pairs], [address(t).path for _, t in pairs])


def delete(path: Path) -> None:
    """An object, or everything below a folder, if there is any."""
    place = address(path)
    try:
        place.fs.rm(place.path, recursive=True)
    except FileNotFoundError:
        return


def digest(path: Path) -> str:
    """Hex sha256 of an object: what `upload` noted when it wrote these bytes, else of the bytes.

    Whoever replaces an object replaces its note in the same request, so that it can't be an older
    object's.
    """
    place = address(path)
    if place.protocol in METADATA:
        try:
            noted = place.fs.getxattr(place.path, DIGEST)
        except KeyError:
            noted = None
        if noted:
            return str(noted)
    with opened(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()  # type: ignore[arg-type]
