"""Locks on a stage's folder on an object store, where the kernel has none.

A lock is a small object that its holder rewrites every BEAT seconds. One whose beat stands still
for LIFETIME seconds, by the clock of whoever waits, is taken over; of a process of this machine
that is gone it is known at once. One that lives proves nothing: its holder may have lost the store
and given up. No two clocks are compared. What such a lock cannot do, to stop a
holder that was merely paused, the numbers of `ml.store.shelf` do: a higher number exists.
"""

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from ml.errors import STORES, WorkspaceBusy
from ml.store import beats, objects
from ml.store.beats import Beats
from ml.store.files import say
from ml.store.shelf import READERS, Shelf, lock_in, look

LIFETIME = 60.0
GRACE = 2.0
"""Seconds to wait for a process that only looks into a folder for a moment."""
POLL = 0.5
_holding: set[str] = set()
"""Who holds locks in this process. What its records name beside these is what one left that could
not reach the store at its end."""


class Lease:
    """A stage's lock on an object store, held until the end of its `with` block; as
    `ml.store.locks.FolderLock`."""

    def __init__(self, data: Path, stage: str) -> None:
        self.data, self.stage = data, stage
        self.place = data / stage
        self.number: int | None = None
        """Of the version that the holder may write."""
        self._reading: Path | None = None
        self._beats = Beats(self.place, stage)
        self._seen: dict[Path, tuple[object, float]] = {}

    def __enter__(self) -> "Lease":
        _holding.add(self._beats.by)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _holding.discard(self._beats.by)
        if kind is not None and kind.__module__.startswith(STORES):
            self._beats.over.set()  # the store does not answer: others take over when it does
            return
        self._beats.end()
        try:
            self._stop_reading()
            if self.number is not None:
                self._beats.release(lock_in(self.place, self.number))
        except Exception as error:  # not instead of what ended the block
            say(
                f"the lock on {self.place} can't be given back ({error}): others take it over in "
                f"{LIFETIME:.0f} s"
            )
        self.number = self._reading = None

    def read(self) -> None:
        """Together with other readers. Raises WorkspaceBusy naming who makes the stage, ValueError
        when there is no such bucket."""
        path = self.place / READERS / f"{uuid.uuid4().hex}.lock"
        try:
            objects.create(path, self._beats.record())
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.data} can't be used: {error}. Make the bucket, or correct --root"
            ) from error
        except PermissionError as error:
            say(
                f"{path} can't be written ({error}): nothing keeps others from replacing "
                f"{self.place} while it is read"
            )
            return
        self._reading = path
        self._beats.keep(path)
        end = time.monotonic() + GRACE
        while True:
            shelf = look(self.place)
            held, holder = self._writer(shelf)
            if held is False:
                if holder:  # gone without a word: it must not come back while we read
                    self._take(shelf, released=True)
                return
            if held and time.monotonic() > end:
                self._stop_reading()
                raise self._busy([holder])
            time.sleep(POLL)

    def write(self) -> None:
        """Alone. Raises WorkspaceBusy naming who makes or reads the stage, ValueError where
        nothing can be written."""
        end = time.monotonic() + GRACE
        while self.number is None:
            shelf = look(self.place)
            held, holder = self._writer(shelf)
            if held is False:
                if (number := self._take(shelf)) is not None:
                    self.number = number
                    self._beats.keep(lock_in(self.place, number), number)
                continue
            self._stop_reading()  # else two that want to write would wait for each other
            if held and time.monotonic() > end:
                raise self._busy([holder])
            time.sleep(POLL)
        end = time.monotonic() + GRACE
        while readers := self._readers():
            if any(held for held, _ in readers) and time.monotonic() > end:
                raise self._busy([holder for _, holder in readers])
            time.sleep(POLL)
        self._stop_reading()

    def check(self) -> None:
        """Raises WorkspaceBusy unless the holder may still write its version."""
        if self.number is None or max(look(self.place).locks, default=0) != self.number:
            raise WorkspaceBusy(
                f"{self.place}: this run did not answer for {LIFETIME:.0f} s and another one has "
                "taken over; nothing of it was changed. Wait for that one"
            )

    def _take(self, shelf: Shelf, released: bool = False) -> int | None:
        """The next number, None when another process was faster."""
        number = shelf.highest + 1
        try:
            taken = objects.create(lock_in(self.place, number), self._beats.record(released))
        except PermissionError as error:
            raise ValueError(
                f"{self.data} can't be written with this key ({error}): it needs the rights to "
                "list, read, write and delete there"
            ) from error
        return number if taken else None

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._beats.forget(self._reading)
            objects.delete(self._reading)
            self._reading = None

    def _writer(self, shelf: Shelf) -> tuple[bool | None, dict[str, Any]]:
        """Whether the stage is being written (None: not known yet) and by whom, {} by nobody."""
        if not shelf.locks:
            return False, {}
        return self._held(lock_in(self.place, max(shelf.locks)))

    def _readers(self) -> list[tuple[bool | None, dict[str, Any]]]:
        """Readers beside this one. Removes what those left that are gone."""
        found: list[tuple[bool | None, dict[str, Any]]] = []
        for name in objects.names_in(self.place / READERS):
            path = self.place / READERS / name
            if path == self._reading:
                continue
            held, holder = self._held(path)
            if held is False:
                objects.delete(path)
            else:
                found.append((held, holder))
        return found

    def _held(self, path: Path) -> tuple[bool | None, dict[str, Any]]:
        holder = _read(path)
        if not holder or holder.get("released"):
            return False, {}
        if holder.get("machine") == beats.MACHINE:
            if beats.started(holder["pid"]) != holder["started"]:
                return False, holder
            if holder["pid"] == os.getpid():
                return holder["by"] in _holding, holder
        now = time.monotonic()
        beat, since = self._seen.setdefault(path, (holder.get("beat"), now))
        if beat != holder.get("beat"):
            return True, holder
        return (False if now - since > LIFETIME else None), holder

    def _busy(self, holders: list[dict[str, Any]]) -> WorkspaceBusy:
        who = ", ".join(
            f"process {h.get('pid')} on {h.get('host')} (holds {h.get('stage')!r} since "
            f"{h.get('since')})"
            for h in holders
        )
        return WorkspaceBusy(
            f"{self.place} is in use: {who}. Wait for it, or stop it, and start again (what it has "
            "made so far stays)"
        )


def _read(path: Path) -> dict[str, Any]:
    """A lock's record; {} when it is gone, and no beat when it can't be read."""
    try:
        record = json.loads(objects.read(path))
    except FileNotFoundError:
        return {}
    except ValueError:
        record = None
    return record if isinstance(record, dict) else {"beat": None, "machine": "", "host": "unknown"}
