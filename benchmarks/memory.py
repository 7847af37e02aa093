"""The peak of a process's memory while something runs in it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Peak:
    mb: float


@contextmanager
def watched_peak(every: float) -> Iterator[Peak]:
    """The peak within the block, whole when it ends; looked at so often, in seconds."""
    peak, done = Peak(anonymous_mb()), threading.Event()

    def watch() -> None:
        while not done.wait(every):
            peak.mb = max(peak.mb, anonymous_mb())

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield peak
    finally:
        done.set()
        watching.join()
    peak.mb = max(peak.mb, anonymous_mb())


def anonymous_mb() -> float:
    """Resident memory of this process but for mapped files, which the kernel drops when it must."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024
