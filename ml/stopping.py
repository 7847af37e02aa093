"""How a command is stopped from outside: Ctrl-C, SIGTERM, a pipe that nobody reads.

Not here: what is then said, and the exit codes (`ml.errors`).
"""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stoppable(received: list[int]) -> Iterator[None]:
    """Ctrl-C and SIGTERM end this process's workers and raise KeyboardInterrupt.

    received: takes the signal's number.

    Else a pool would wait for what its workers have begun, for minutes. Only a process's main
    thread can arrange that; a signal that the shell has set to be ignored stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    owner = os.getpid()

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        if os.getpid() != owner:  # a copy that is about to become another program: no word of it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def quiet_worker() -> None:
    """In a worker process: Ctrl-C and SIGTERM end it silently, since its parent reports."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def stdout_closed() -> bool:
    """Whether stdout is a pipe that nobody reads; if so, nothing is written to it any more."""
    try:
        out = sys.stdout.fileno()
    except OSError:  # captured, no file at all
        return False
    poll = select.poll()
    poll.register(out, select.POLLOUT)
    closed = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    if closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out)
    return closed
