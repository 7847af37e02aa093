"""Shards: Parquet files of a few hundred samples each, made once, resumed after a kill.

A shard is in place when its sidecar (`.shard-00000.json`) names the recipe it was made by and the
sha256 of the file. Batches never cross shards, so a resumed run gives the same bytes.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ml.files import atomic, sha256_file, write_json

Item = TypeVar("Item")


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.parquet"


def split(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive groups of `size` items, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def write_shards(
    folder: Path,
    recipe: str,
    plan: Sequence[Sequence[Item]],
    make: Callable[[Sequence[Item]], pd.DataFrame],
    schema: pa.Schema,
) -> dict[str, int]:
    """Makes the shards that are not in place yet; returns rows by file name.

    `make` turns one group of the plan into the rows of one shard, in the columns of `schema`
    (further columns are an error). `recipe` is the digest of everything the rows depend on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = {}
    total = sum(len(group) for group in plan)
    with tqdm(total=total, desc=folder.name, unit="row", disable=total == 0) as bar:
        for index, group in enumerate(plan):
            name = shard_name(index)
            present = _rows_in_place(folder / name, recipe)
            rows[name] = _write_one(folder / name, recipe, make(group), schema) \
                if present is None else present
            bar.update(len(group))
    return rows


def _sidecar(path: Path) -> Path:
    return path.with_name(f".{path.stem}.json")


def _rows_in_place(path: Path, recipe: str) -> int | None:
    side = _sidecar(path)
    if not path.is_file() or not side.is_file():
        return None
    said = json.loads(side.read_text())
    matches = said["recipe"] == recipe and said["sha256"] == sha256_file(path)
    return said["rows"] if matches else None


def _write_one(path: Path, recipe: str, frame: pd.DataFrame, schema: pa.Schema) -> int:
    missing = [name for name in schema.names if name not in frame.columns]
    extra = [name for name in frame.columns if name not in schema.names]
    if (missing or extra) and len(frame):
        raise ValueError(f"{path}: columns missing {missing}, not in the schema {extra}")
    frame = frame.reindex(columns=schema.names)
    table = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    with atomic(path) as temporary:
        pq.write_table(table.replace_schema_metadata(None), temporary, compression="zstd")
    write_json(_sidecar(path), {"recipe": recipe, "sha256": sha256_file(path), "rows": len(frame)})
    return len(frame)


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder in order."""
    return sorted(folder.glob("shard-*.parquet"))


def iter_shards(folder: Path, columns: Sequence[str] | None = None) -> Iterator[pd.DataFrame]:
    """One frame a shard, in order; only the named columns are read from disk."""
    for path in shard_files(folder):
        yield pd.read_parquet(path, columns=list(columns) if columns else None)


def read_shards(folder: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All shards as one frame (index 0..n-1). Raises ValueError when there is none."""
    frames = list(iter_shards(folder, columns))
    if not frames:
        raise ValueError(f"no shards in {folder}: run the stage {folder.name!r} first")
    return pd.concat(frames, ignore_index=True)
