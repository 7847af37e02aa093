"""The beat of a lock on an object store: a thread that rewrites the lock while its holder lives."""

import json
import os
import threading
import time
import uuid
from pathlib import Path

from ml.store import objects
from ml.store.files import HOST, say
from ml.store.shelf import look

BEAT = 10.0
"""Seconds between two rewritings."""


def _machine() -> str:
    """What names the processes among which an id is unique: this boot, this namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex  # nobody else's: others watch the beat


def started(process: int) -> str:
    """When a process of this machine began, in the kernel's ticks; "" when it is gone, though
    nobody may have waited for it yet (a zombie)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


MACHINE = _machine()


class Beats:
    """Rewrites the locks of one holder until the end, in a thread of its own."""

    def __init__(self, place: Path, stage: str) -> None:
        self.place, self.stage = place, stage
        self.since = time.strftime("%Y-%m-%d %H:%M:%S")
        self.by = uuid.uuid4().hex
        self.beat = 0
        self.kept: dict[Path, int | None] = {}
        self.guard = threading.Lock()
        self.over = threading.Event()
        self.thread: threading.Thread | None = None

    def record(self, released: bool = False) -> bytes:
        return json.dumps(
            {
                "pid": os.getpid(),
                "started": started(os.getpid()),
                "machine": MACHINE,
                "host": HOST,
                "stage": self.stage,
                "since": self.since,
                "beat": self.beat,
                "released": released,
                "by": self.by,
            }
        ).encode()

    def keep(self, path: Path, number: int | None = None) -> None:
        """number: of a writer, which stops when there is a higher one."""
        with self.guard:
            self.kept[path] = number
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, daemon=True)
            self.thread.start()

    def forget(self, path: Path) -> None:
        with self.guard:
            self.kept.pop(path, None)

    def end(self) -> None:
        self.over.set()
        if self.thread is not None:
            self.thread.join()

    def release(self, path: Path) -> None:
        """Leaves a writer's lock as a mark of the number that was given out."""
        with objects.uploaded(path) as local:
            local.write_bytes(self.record(released=True))

    def _run(self) -> None:
        while not self.over.wait(BEAT):
            try:
                self._rewrite()
            except Exception as error:  # the next beat may get through
                say(f"the lock on {self.place} can't be renewed at the moment: {error}")

    def _rewrite(self) -> None:
        self.beat += 1
        with self.guard:
            for path, number in list(self.kept.items()):
                if number is not None and max(look(self.place).locks, default=0) > number:
                    say(f"{self.place}: another run has taken over; this one will not be kept")
                    del self.kept[path]
                    continue
                path.write_bytes(self.record())
