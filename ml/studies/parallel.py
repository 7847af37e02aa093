"""Tasks of a study in several processes, each in one thread, with a line for each that is done."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from ml.compute.workers import Workers
from ml.settings.profile import load_params

Task = tuple[Callable[..., object], *tuple[object, ...]]
"""A function of a module's top level and its arguments, all of which travel to a process."""


def processes(count: int, threads: int | None = None) -> Workers:
    """An executor of so many processes on this machine. threads: torch's in each of several."""
    executor = dataclasses.replace(load_params().executor, workers=count)
    return Workers(executor, threads=threads)


def run_tasks(title: str, tasks: Sequence[Task], workers: int) -> None:
    """Calls every (function, *arguments), `workers` at once, each in one thread.

    Functions leave their results on disk; text that one returns is printed as what was done. Two
    processes of one thread do nearly twice the work of one process of two.
    """
    started = time.perf_counter()
    done = processes(workers, threads=1)(_timed, tasks)
    for i, (_, (message, spent)) in enumerate(done, start=1):
        so_far = (time.perf_counter() - started) / 60
        print(f"{title} {i}/{len(tasks)}: {message} ({spent:.0f} s; {so_far:.1f} min)", flush=True)


def _timed(task: Task) -> tuple[str, float]:
    function, *arguments = task
    started = time.perf_counter()
    result = function(*arguments)
    message = result if isinstance(result, str) else function.__name__
    return message, time.perf_counter() - started
