"""The files of a set of shards, and whether each is in place; nothing is read of their rows.

A shard is in place when its sidecar (`.shard-00000.json`) names the recipe it was made by and the
sha256 of the file. Not here: frames (`ml.store.shards`), so that what only looks for files, as
every command does, needs no pandas.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml.store.files import read_note, sha256_file

OWN = "labelled"
"""Purpose and subset of the rows of TRIPLETS that are a user's own, and the folder of their
pictures, LABELLED, in that of `triplets`."""


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.parquet"


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder in order."""
    return sorted(folder.glob("shard-*.parquet"))


def sidecar(path: Path) -> Path:
    """The file that records the recipe of a shard."""
    return path.with_name(f".{path.stem}.json")


_SIDECAR = {"recipe": str, "sha256": str, "rows": int}


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """recipe, sha256 and rows of a shard; None without a sidecar that can be read."""
    return read_note(sidecar(path), _SIDECAR)


def rows_in_place(path: Path, recipe: str) -> int | None:
    """The rows of a shard that this recipe made and nothing has changed since; else None."""
    note = read_sidecar(path)
    if note is None or note["recipe"] != recipe or not path.is_file():
        return None
    rows: int = note["rows"]
    return rows if note["sha256"] == sha256_file(path) else None


def shards_of(folder: Path, recipe: str) -> Iterator[Path]:
    """The shards of a folder whose sidecars name this recipe, in order."""
    for shard in shard_files(folder):
        note = read_sidecar(shard)
        if note is not None and note["recipe"] == recipe:
            yield shard
