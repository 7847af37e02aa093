"""A run with all its descendants, found by a mark in their environment, and how they are killed."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.checkout import environment

PATIENCE = 120.0
"""Seconds in which what a parent leaves, killed or not, must end by itself (a machine with much
else to do is slow)."""


@dataclass
class Attempt:
    """One start of the command, in a session of its own."""

    process: subprocess.Popen
    mark: str
    log: Path  # stdout and stderr

    @classmethod
    def start(cls, command: Sequence[str], checkout: Path, mark: str, log: Path) -> "Attempt":
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=checkout,
                env=environment(checkout, mark),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, mark, log)

    def descendants(self) -> list[int]:
        """Without the process that was started."""
        return [number for number in living(self.mark) if number != self.process.pid]

    def kill_all(self) -> None:
        """All at one moment, as when the power goes: each is stopped before the first is killed."""
        for sent in (signal.SIGSTOP, signal.SIGKILL):
            seen: set[int] = set()
            while new := set(living(self.mark)) - seen:
                for number in new:
                    _signal(number, sent)
                seen |= new
        self.process.wait()

    def kill_parent(self) -> None:
        """The started process alone; what it leaves may end by itself."""
        self.process.kill()
        self.process.wait()

    def kill_child(self, number: int) -> None:
        _signal(number, signal.SIGKILL)

    def left(self) -> list[str]:
        """The command lines of processes that do not end by themselves."""
        self._until_gone()
        return [_command(number) for number in living(self.mark)]

    def _until_gone(self) -> None:
        end = time.monotonic() + PATIENCE
        while living(self.mark) and time.monotonic() < end:
            time.sleep(0.05)


def living(mark: str) -> list[int]:
    """Processes that have the mark and are no zombies, whatever session or parent they took."""
    wanted, found = f"CHAOS_MARK={mark}".encode(), []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/environ", "rb") as file:
                if wanted in file.read().split(b"\0"):
                    found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def _command(number: int) -> str:
    try:
        text = Path(f"/proc/{number}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return f"process {number}"
    return f"process {number}: {text.replace(bytes(1), b' ').decode(errors='replace')[:150]}"


def _signal(number: int, sent: signal.Signals) -> None:
    try:
        os.kill(number, sent)
    except ProcessLookupError:
        pass
