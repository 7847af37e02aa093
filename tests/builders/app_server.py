"""The app as its users have it: a process of its own that serves a workspace on a free port."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT

START = 240
"""Seconds until it serves, at most: on a busy machine torch and Gradio take long to load."""


@dataclass(frozen=True)
class Server:
    url: str
    workspace: Workspace
    refused: Path  # what it tried to reach elsewhere
    log: Path  # what it says on stderr


@contextmanager
def serve(profile: str, workspace: Workspace, folder: Path) -> Iterator[Server]:
    """Serves until the end of the block; its process then ends, also when a test failed."""
    refused, out, log = (folder / name for name in ("refused.txt", "stdout.txt", "stderr.txt"))
    refused.touch()
    command = [sys.executable, "-m", "tests.builders.walled", str(refused), "app", "--port", "0"]
    command += ["--profile", profile, "--root", str(workspace.root)]
    with out.open("w") as stdout, log.open("w") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, stdout=stdout, stderr=stderr)
    try:
        yield Server(_address(process, out, log), workspace, refused, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen, out: Path, log: Path) -> str:
    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        if "http://" in (said := out.read_text()) and said.endswith("\n"):
            return said[said.index("http://") :].split()[0]
        time.sleep(0.2)
    raise AssertionError(f"the app did not start: {log.read_text()[-3000:]}")
