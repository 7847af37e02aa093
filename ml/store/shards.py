"""Shards: Parquet files of a few hundred samples each, made once, resumed after a kill.

Here: their rows, as frames. Batches never cross shards, so a resumed run gives the same bytes, and
so do several processes that each make some of the shards. Not here: which files they are, and
whether one is in place (`ml.store.sidecars`).
"""

from collections.abc import Collection, Container, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml.store.files import atomic, sha256_file, write_json
from ml.store.objects import opened
from ml.store.places import is_remote
from ml.store.sidecars import shard_files, sidecar

Item = TypeVar("Item")


def split(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive groups of `size` items, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


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


def with_keys(frame: pd.DataFrame, keys: Container[str]) -> pd.DataFrame:
    """The rows with these keys. (`isin` would go through all the keys again for each shard.)"""
    return frame[frame.key.map(keys.__contains__).astype(bool)]


def iter_shards(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """One frame a shard, in order; only the named columns are read from disk."""
    for path in shard_files(folder):
        yield read_frame(path, columns or None)


def iter_rows(
    folder: Path, columns: Sequence[str], keys: Collection[str]
) -> Iterator[pd.DataFrame]:
    """The rows of some keys, one frame a shard; of other rows only the key is read into memory."""
    wanted = [("key", "in", set(keys))]
    for path in shard_files(folder) if len(keys) else []:
        yield read_frame(path, columns, wanted)


def read_rows(folder: Path, columns: Sequence[str], keys: Collection[str]) -> pd.DataFrame:
    """The rows of some keys, out of all shards, in their order (index 0..n-1); those that are
    there."""
    frames = list(iter_rows(folder, columns, keys))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(columns))


def read_shards(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All shards as one frame (index 0..n-1). Raises ValueError when there is none."""
    frames = list(iter_shards(folder, columns))
    if not frames:
        raise ValueError(f"no shards in {folder}: run the stage {folder.name!r} first")
    return pd.concat(frames, ignore_index=True)
