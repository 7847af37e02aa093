"""A finished file or folder that takes a name which nothing has yet: of several programs that want
the same name at once, one gets it."""

import errno
import os
from pathlib import Path

TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR)
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS)
"""Of a file system that has no hard links."""


def create(new: Path, path: Path, taken: str) -> None:
    """Renames `new` to `path`. Raises ValueError, with the text `taken`, when anything but an empty
    folder stands there by then; that stays as it is."""
    try:
        if new.is_dir():
            os.rename(new, path)  # never onto a file, nor a folder that holds anything
        else:
            _link(new, path)
    except OSError as error:
        if error.errno in TAKEN:
            raise ValueError(taken) from error
        raise


def _link(new: Path, path: Path) -> None:
    """A file under its new name alone. A link fails where a rename would replace."""
    try:
        os.link(new, path)
        new.unlink()
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # the name is ours now
        os.replace(new, path)
