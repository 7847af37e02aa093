"""Making the shards of a folder: those that are not in place yet, here or in several processes."""

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
from tqdm import tqdm

from ml.errors import quiet_worker, starting_workers
from ml.store.shards import rows_in_place, shard_name, write_shard

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import Synchronized

Item = TypeVar("Item")
Make: TypeAlias = Callable[[Sequence[Item]], pd.DataFrame]
"""The rows of one shard out of one group of the plan."""
Todo: TypeAlias = dict[str, Sequence[Item]]


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
        if (count := rows_in_place(folder / name, recipe)) is None:
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
        yield name, write_shard(folder / name, recipe, make(group), schema)


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
    return write_shard(path, recipe, _maker(group), schema)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()
