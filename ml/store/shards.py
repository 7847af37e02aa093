"""Shards: Parquet files of a few hundred samples each, made once, resumed after a kill.

A shard is in place when its sidecar (`.shard-00000.json`) names the recipe it was made by and the
sha256 of the file. Batches never cross shards, so a resumed run gives the same bytes, and so do
several processes that each make some of the shards.
"""

from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml.store.files import atomic, read_note, sha256_file, write_json
from ml.store.objects import opened
from ml.store.places import is_remote

Item = TypeVar("Item")


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.parquet"


def split(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive groups of `size` items, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


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


def write_shard(path: Path, recipe: str, frame: pd.DataFrame, schema: pa.Schema) -> int:
    """Writes one shard and its sidecar; returns its rows. Raises ValueError for other columns."""
    missing = [name for name in schema.names if name not in frame.columns]
    extra = [name for name in frame.columns if name not in schema.names]
    if (missing or extra) and len(frame):
        raise ValueError(f"{path}: columns missing {missing}, not in the schema {extra}")
    frame = frame.reindex(columns=schema.names)
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")
    write_json(sidecar(path), {"recipe": recipe, "sha256": sha256_file(path), "rows": len(frame)})
    return len(frame)


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder in order."""
    return sorted(folder.glob("shard-*.parquet"))


def read_frame(
    path: Path, columns: Sequence[str] | None = None, filters: list[Any] | None = None
) -> pd.DataFrame:
    """A Parquet file, or the named columns of the rows that pyarrow's `filters` let through.

    Of an object store only the bytes of those columns are fetched.
    """
    wanted = None if columns is None else list(columns)
    if not is_remote(path):
        return pd.read_parquet(path, columns=wanted, filters=filters)
    with opened(path, whole=False) as handle:
        return pd.read_parquet(handle, columns=wanted, filters=filters)


def shards_of(folder: Path, recipe: str) -> Iterator[Path]:
    """The shards of a folder whose sidecars name this recipe, in order."""
    for shard in shard_files(folder):
        note = read_sidecar(shard)
        if note is not None and note["recipe"] == recipe:
            yield shard


def with_keys(frame: pd.DataFrame, keys: Container[str]) -> pd.DataFrame:
    """The rows with these keys. (`isin` would go through all the keys again for each shard.)"""
    return frame[frame.key.map(keys.__contains__).astype(bool)]


def iter_shards(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """One frame a shard, in order; only the named columns are read from disk."""
    for path in shard_files(folder):
        yield read_frame(path, columns or None)


def read_shards(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All shards as one frame (index 0..n-1). Raises ValueError when there is none."""
    frames = list(iter_shards(folder, columns))
    if not frames:
        raise ValueError(f"no shards in {folder}: run the stage {folder.name!r} first")
    return pd.concat(frames, ignore_index=True)
