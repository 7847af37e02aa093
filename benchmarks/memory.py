"""The peak of a process's memory while something runs in it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml.settings.profile import ROOT


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


def apart(module: str, name: str, place: Path, count: int, of: str) -> dict[str, float]:
    """What `python -m benchmarks.<module> --measure name` prints, in a process of its own.

    place: its --folder. count: its --counts, of what `of` calls them ("samples").
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", "--folder", str(place), "--counts"]
    done = subprocess.run(
        [*command, str(count), "--measure", name], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{name} of {count:,} {of} failed; what it said stands above")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
