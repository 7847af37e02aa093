"""A file system of its own for a test: really full, really read-only."""

import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = 4096


def mount(folder: Path, options: str = "size=1m") -> None:
    """A file system in memory at a folder that it makes; skips the test where nothing can be
    mounted. `umount` is the caller's."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    done = shutil.which("mount") and subprocess.run(command, capture_output=True)
    if not done or done.returncode:
        pytest.skip("no file system can be mounted here")


def umount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def leave(folder: Path, free: int) -> None:
    """Grows or shrinks the file system so that this many bytes are free, in whole pages."""
    usage = shutil.disk_usage(folder)
    remount(folder, f"size={max(usage.used + free, PAGE)}")
