"""Making the shards of a folder: those that are not in place yet, here or by workers elsewhere.

Who calls the function that makes a shard is an `Executor`: `here`, one shard after the other, or
the workers of a Ray cluster (`ml.compute.workers`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeAlias, TypeVar

import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from ml.errors import WorkerLost
from ml.store.files import remove
from ml.store.shards import write_shard
from ml.store.sidecars import read_sidecar, rows_in_place, shard_name

Item = TypeVar("Item")
Result = TypeVar("Result")
Make: TypeAlias = Callable[[Sequence[Item]], pd.DataFrame]
"""The rows of one shard out of one group of the plan."""
PATIENCE = 90.0
"""Seconds in which a file that another machine wrote must be seen here (NFS remembers for a minute
that a name was not there)."""


class Executor(Protocol):
    """Calls `work` on every item; yields the item's place and the result, as they are done.

    `work` may travel to other processes by pickle; there it stays for all its items, so that what
    it loads is loaded once a process. An exception of it is raised by the iterator.
    """

    def __call__(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result]]: ...


def here(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[tuple[int, Result]]:
    """The executor of one process: one item after the other, in this one."""
    for place, item in enumerate(items):
        yield place, work(item)


@dataclass(frozen=True)
class Shard(Generic[Item]):
    """One shard that is to be made, and out of what."""

    path: Path
    group: Sequence[Item]

    def __str__(self) -> str:
        return self.path.name


@dataclass(frozen=True)
class Making(Generic[Item]):
    """Makes one shard and writes it; returns its rows. One that is in place already, because the
    worker that wrote it was lost before it could say so, is not made again."""

    recipe: str
    make: Make[Item]
    schema: pa.Schema

    def __call__(self, shard: Shard[Item]) -> int:
        if (rows := rows_in_place(shard.path, self.recipe)) is not None:
            return rows
        return write_shard(shard.path, self.recipe, self.make(shard.group), self.schema)


def write_shards(
    folder: Path,
    recipe: str,
    plan: Sequence[Sequence[Item]],
    make: Make[Item],
    schema: pa.Schema,
    executor: Executor = here,
) -> dict[str, int]:
    """Makes the shards that are not in place yet; returns rows by file name.

    `make` turns one group of the plan into the rows of one shard, in the columns of `schema`
    (further columns are an error). `recipe` is the digest of everything the rows depend on. With an
    executor of other processes, `make` travels to each of them by pickle and should load its model
    there, when it is first called. An exception of `make` is raised here; WorkerLost when workers
    were lost again and again; ValueError when what they wrote is not to be seen here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: dict[str, int] = {}
    todo: list[Shard[Item]] = []
    for i, group in enumerate(plan):
        path = folder / shard_name(i)
        if (count := rows_in_place(path, recipe)) is None:
            todo.append(Shard(path, group))
        else:
            rows[path.name] = count
    total, left = sum(map(len, plan)), sum(len(shard.group) for shard in todo)
    with tqdm(
        total=total, initial=total - left, desc=folder.name, unit="row", disable=left == 0
    ) as bar:
        try:
            for place, count in executor(Making(recipe, make, schema), todo):
                shard = todo[place]
                if executor is not here:
                    _refuse_unseen(shard.path)
                rows[shard.path.name] = count
                bar.update(len(shard.group))
        except WorkerLost as lost:
            lost.add_note(f"of {folder}; shards that are done stay: start the same command again")
            raise
    if executor is not here:
        for half in folder.glob(".shard-*.tmp"):  # of workers that were lost on other machines
            remove(half)
    return {name: rows[name] for name in map(shard_name, range(len(plan)))}


def _refuse_unseen(path: Path) -> None:
    """Raises ValueError for a shard that a worker wrote where this process does not see it."""
    end = time.monotonic() + PATIENCE
    while read_sidecar(path) is None:
        if time.monotonic() > end:
            raise ValueError(
                f"{path} was written by a worker and is not to be seen here: expected a folder "
                "that all machines of the cluster share at the same path. Put data/ (--root) on "
                "a common file system"
            )
        time.sleep(1)
