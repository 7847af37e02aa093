"""Locks on a stage's folder: one process that writes it, or any number that read it.

A lock is the kernel's (flock) on `data/<profile>/.locks/<stage>`, so a process that is killed holds
nothing. A stage that is made holds its own folder alone and its inputs together with other readers:
different stages of one workspace may be made at the same time, and inputs are not replaced while
they are read.
"""

import errno
import fcntl
import json
import os
import time
from pathlib import Path

from ml.errors import WorkspaceBusy, unwritten
from ml.store.files import HOST, Damaged, read_json, say

FOLDER = ".locks"
GRACE = 2.0
"""Seconds to wait for a process that only looks into a folder for a moment."""
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)
_HOLDER = {"pid": int, "host": str, "stage": str, "since": str}


class FolderLock:
    """A stage's lock, held until the end of its `with` block."""

    def __init__(self, data: Path, stage: str) -> None:
        self.data, self.stage = data, stage
        self.path = data / FOLDER / stage
        self.handle: int | None = None

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle is not None:
            os.close(self.handle)
            self.handle = None

    def read(self) -> None:
        """Together with other readers. Raises WorkspaceBusy naming who makes the stage."""
        self._take(fcntl.LOCK_SH)

    def write(self) -> None:
        """Alone. Raises WorkspaceBusy naming who makes or reads the stage, PermissionError where
        nothing can be written."""
        if self.handle is None:
            self.handle = _open(self.path)
        if self.handle is None or not fcntl.fcntl(self.handle, fcntl.F_GETFL) & os.O_RDWR:
            raise PermissionError(
                errno.EACCES, "this user can't write here (a read-only disk?)", str(self.data)
            )
        self._take(fcntl.LOCK_EX)
        holder = {
            "pid": os.getpid(),
            "host": HOST,
            "stage": self.stage,
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        try:
            os.ftruncate(self.handle, 0)
            os.pwrite(self.handle, json.dumps(holder).encode(), 0)
        except OSError as error:
            if (told := unwritten(error, self.path)) is error:
                raise
            raise told from error

    def _take(self, kind: int) -> None:
        if self.handle is None:
            self.handle = _open(self.path)
        if self.handle is None:
            say(
                f"{self.path} can't be opened by this user: nothing keeps others from replacing "
                f"{self.data / self.stage} while it is read"
            )
            return
        end = time.monotonic() + GRACE
        while not _lock(self.handle, kind):
            if time.monotonic() > end:
                raise WorkspaceBusy(
                    f"{self.data / self.stage} is in use: {holders(self.data)}. Wait for it, or "
                    "stop it, and start again (what it has made so far stays)"
                )
            time.sleep(0.05)


def holders(data: Path) -> str:
    """Which processes are making stages of this workspace, in words."""
    found = []
    for path in sorted((data / FOLDER).iterdir()):
        with FolderLock(data, path.name) as lock:
            lock.handle = _open(path)
            if lock.handle is None or _lock(lock.handle, fcntl.LOCK_SH):
                continue
        try:
            holder = read_json(path, _HOLDER)
        except (Damaged, OSError):
            holder = None
        if holder:
            found.append(
                f"process {holder['pid']} on {holder['host']} makes {holder['stage']!r} since "
                f"{holder['since']}"
            )
    return ", ".join(found) or "another process reads it"


def _open(path: Path) -> int | None:
    """The lock file's descriptor, for reading alone where this user can't write: that is enough to
    be seen by a writer. None where even that can't be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(
            f"{error.filename} is a file, expected a folder: --root is the folder that holds data/"
        ) from error
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise ValueError(
                f"{path} is in the way: a lock of ours is a plain file. Move it elsewhere"
            ) from error
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
    try:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        say(
            f"the file system knows no locks ({error.strerror}): nothing keeps two runs from "
            "writing the same folder"
        )
    return True
