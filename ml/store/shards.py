"""Shards: Parquet files of a few hundred samples each, made once, resumed after a kill.

A shard is in place when its sidecar (`.shard-00000.json`) names the recipe it was made by and the
sha256 of the file. Batches never cross shards, so a resumed run gives the same bytes, and so do
several processes that each make some of the shards.
"""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ml.errors import quiet_worker, starting_workers
from ml.store.files import atomic, read_note, sha256_file, write_json

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

Item = TypeVar("Item")
Make: TypeAlias = Callable[[Sequence[Item]], pd.DataFrame]
"""The rows of one shard out of one group of the plan."""
Todo: TypeAlias = dict[str, Sequence[Item]]


def shard_name(index: int) -> str:
    return f"shard-{index:05d}.parquet"


def split(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """Consecutive groups of `size` items, the last one shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def write_shards(
    folder: Path,
    recipe: str,
    plan: Sequence[Sequence[Item]],
    make: Make[Item],
    schema: pa.Schema,
    processes: int = 1,
) -> dict[str, int]:
    """Makes the shards that are not in place yet; returns rows by file name.

    `make` turns one group of the plan into the rows of one shard, in the columns of `schema`
    (further columns are an error). `recipe` is the digest of everything the rows depend on.
    processes: 1 makes one shard after the other here; more start that many, the n-th on the n-th
    GPU where there are GPUs, 0 as many as there are GPUs. `make` then travels to each of them by
    pickle and should load its model there, when it is first called. An exception of `make` is
    raised here; RuntimeError when a process was killed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, int] = {}
    todo: dict[str, Sequence[Item]] = {}
    for i, group in enumerate(plan):
        name = shard_name(i)
        if (count := _rows_in_place(folder / name, recipe)) is None:
            todo[name] = group
        else:
            rows[name] = count
    total, left = (sum(map(len, groups)) for groups in (plan, todo.values()))
    workers = min(processes or _gpus(), len(todo))
    with tqdm(
        total=total, initial=total - left, desc=folder.name, unit="row", disable=left == 0
    ) as bar:
        made = (
            _make_here(folder, recipe, todo, make, schema)
            if workers <= 1
            else _make_apart(folder, recipe, todo, make, schema, workers)
        )
        for name, count in made:
            rows[name] = count
            bar.update(len(todo[name]))
    return {name: rows[name] for name in map(shard_name, range(len(plan)))}


def _make_here(
    folder: Path, recipe: str, todo: Todo[Item], make: Make[Item], schema: pa.Schema
) -> Iterator[tuple[str, int]]:
    for name, group in todo.items():
        yield name, _write_one(folder / name, recipe, make(group), schema)


def _make_apart(
    folder: Path,
    recipe: str,
    todo: Todo[Item],
    make: Make[Item],
    schema: pa.Schema,
    workers: int,
) -> Iterator[tuple[str, int]]:
    """Makes shards in several processes; yields the name and rows of each that is done."""
    import torch  # slow to import, and needed only here

    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    start = (make, torch.get_num_threads(), context.Value("i", 0))
    with ProcessPoolExecutor(workers, context, _start_worker, start) as pool:
        try:
            with starting_workers():
                futures = {
                    pool.submit(_make_in_worker, folder / name, recipe, group, schema): name
                    for name, group in todo.items()
                }
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a process that made shards of {folder} was killed (out of memory?) or could not "
                "start; what it said stands above. Shards that are done stay: start the stage "
                "again, with fewer shards.processes if memory is short"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_maker: Make[Any] | None = None
"""In a worker process: its own copy of `make`."""


def _start_worker(make: Make[Any], threads: int, started: "Synchronized[int]") -> None:
    """threads: the parent's, since the number of threads may change a sum's last digits."""
    import torch

    global _maker
    _maker = make
    with started.get_lock():
        place = started.value
        started.value += 1
    if torch.cuda.is_available():
        torch.cuda.set_device(place % torch.cuda.device_count())
    torch.set_num_threads(threads)
    end_with_parent()


def end_with_parent() -> None:
    """In a worker: a killed parent must not leave processes behind that hold GPUs."""
    quiet_worker()
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
    os._exit(1)


def _make_in_worker(path: Path, recipe: str, group: Sequence[Any], schema: pa.Schema) -> int:
    assert _maker is not None, "_start_worker was not called"
    return _write_one(path, recipe, _maker(group), schema)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def sidecar(path: Path) -> Path:
    """The file that records the recipe of a shard."""
    return path.with_name(f".{path.stem}.json")


_SIDECAR = {"recipe": str, "sha256": str, "rows": int}


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """recipe, sha256 and rows of a shard; None without a sidecar that can be read."""
    return read_note(sidecar(path), _SIDECAR)


def _rows_in_place(path: Path, recipe: str) -> int | None:
    note = read_sidecar(path)
    if note is None or note["recipe"] != recipe or not path.is_file():
        return None
    rows: int = note["rows"]
    return rows if note["sha256"] == sha256_file(path) else None


def _write_one(path: Path, recipe: str, frame: pd.DataFrame, schema: pa.Schema) -> int:
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
