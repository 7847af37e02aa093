"""Taking turns: locks that the kernel releases when their holder's process ends.

Dagster's pools are rows in its database: a killed run keeps its row, and the next run waits
forever unless a daemon clears it. A lock on an open file can't outlive its process.
"""

import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import dagster as dg

from ml.errors import WorkspaceBusy
from ml.store.places import is_remote

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # raised on some network file systems
PATIENCE = 2.0  # seconds between two looks at a busy workspace
Made = TypeVar("Made")


@contextmanager
def turn(path: Path, who: str) -> Iterator[None]:
    """Holds the lock file `path` while the block runs; waits for another holder, and names it.

    who: the name of this holder that a waiting run shows. The file is never removed: a lock belongs
    to the open file, so that two could hold "the lock" of a path whose file was replaced. On a file
    system without locks nobody waits. For a place on an object store the lock is this machine's.
    """
    path = path if not is_remote(path) else _here(str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        if try_lock(file) is False:
            file.seek(0)
            dg.get_dagster_logger().warning(
                f"{who} waits for {file.read() or 'another run'} "
                f"({path}); it goes on when that ends or is killed"
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(f"{who}, pid {os.getpid()}, since {time.strftime('%H:%M:%S')}")
        file.flush()
        yield


def _here(address: str) -> Path:
    """A lock file of this machine and user for something on an object store."""
    folder = Path(tempfile.gettempdir()) / f"words-to-masks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ValueError(
            f"{folder} is another user's: locks of this one belong there. Set TMPDIR to a folder "
            "of your own"
        )
    return folder / hashlib.sha256(address.encode()).hexdigest()[:16]


def gpu_turn(home: Path, who: str):
    """One GPU stage at a time on a checkout's data, whatever its profile, run or history; with a
    root on an object store one on this machine, whose GPU it is."""
    return checkout_turn(home, "gpu", who)


def checkout_turn(home: Path, what: str, who: str):
    """One holder of a name at a time for all data below a root; on an object store, on this
    machine."""
    return turn(_here(what) if is_remote(home) else home / "data" / f".{what}.lock", who)


def try_lock(file) -> bool | None:
    """Locks an open file until it is closed or the process ends; False when another holds it, None
    where the file system knows no locks. It must be open for writing: NFS refuses others."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    return True


def when_free(call: Callable[[], Made]) -> Made:
    """Repeats the call until the workspace is no longer busy; warns once, with who holds it.

    The workspace's own lock is the kernel's too, so that the wait ends when its holder does.
    """
    warned = False
    while True:
        try:
            return call()
        except WorkspaceBusy as busy:
            if not warned:
                dg.get_dagster_logger().warning(f"waits: {busy}")
            warned = True
            time.sleep(PATIENCE)
