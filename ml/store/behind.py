"""Work that is done in a thread behind the making of the next item."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def behind(made: Iterable[Item], finish: Callable[[Item], Result]) -> Iterator[Result]:
    """The results of `finish` on each item, in order, while the next item is being made.

    For what needs no GPU, or waits for a disk, after what does: PNGs are encoded while the next
    batch is drawn. At most one item waits to be finished, so that memory holds two. An error of
    `finish` is raised when the next item is made or there is none; one of `made` when what was
    begun is finished.
    """
    begun: Future[Result] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="behind") as pool:
        for item in made:
            if begun is not None:
                yield begun.result()
            begun = pool.submit(finish, item)
            del item  # the thread's alone, while the next one is made
        if begun is not None:
            yield begun.result()
