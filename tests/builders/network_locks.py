"""flock as file systems of a network have it, in this process."""

import errno
import fcntl
import os

import pytest

KINDS = ("nfs", "none")


def use(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """kind: "nfs" (`man 2 flock`: an exclusive lock wants a file open for writing) or "none"."""
    flock = fcntl.flock

    def answer(file, operation):
        if kind == "none":
            raise OSError(errno.ENOLCK, "No locks available")
        number = file if isinstance(file, int) else file.fileno()
        reading = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        if operation & fcntl.LOCK_EX and reading:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", answer)
