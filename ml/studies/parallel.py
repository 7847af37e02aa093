"""Tasks of a study in several processes, each in one thread, with a line for each that is done."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from ml.errors import starting_workers
from ml.store.making import end_with_parent

Task = tuple[Callable[..., object], *tuple[object, ...]]
"""A function of a module's top level and its arguments, all of which travel to a process."""


def run_tasks(title: str, tasks: Sequence[Task], workers: int) -> None:
    """Calls every (function, *arguments), `workers` at once, each in one thread.

    Functions leave their results on disk; text that one returns is printed as what was done. Two
    processes of one thread do nearly twice the work of one process of two.
    """
    started = time.perf_counter()
    for i, (message, spent) in enumerate(_each(tasks, min(workers, len(tasks))), start=1):
        so_far = (time.perf_counter() - started) / 60
        print(f"{title} {i}/{len(tasks)}: {message} ({spent:.0f} s; {so_far:.1f} min)", flush=True)


def _each(tasks: Sequence[Task], workers: int) -> Iterator[tuple[str, float]]:
    """Message and seconds of each task, as they finish."""
    if workers <= 1:
        yield from (_timed(task) for task in tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _one_thread) as pool:
        try:
            with starting_workers():
                futures = [pool.submit(_timed, task) for task in tasks]
            for done in as_completed(futures):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _timed(task: Task) -> tuple[str, float]:
    function, *arguments = task
    started = time.perf_counter()
    result = function(*arguments)
    message = result if isinstance(result, str) else function.__name__
    return message, time.perf_counter() - started


def _one_thread() -> None:
    import torch

    end_with_parent()
    torch.set_num_threads(1)
