"""The digest of a folder that people bring: a model, as the hub's cache or a download has it."""

from collections.abc import Iterator
from pathlib import Path

from ml.store.files import sha256_file, sha256_json


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
            raise ValueError(
                f"{path} is a link to nothing (half a download?): bring the model again"
            )


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
