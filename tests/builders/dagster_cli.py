"""The `dagster` command as people type it, on this checkout's definitions."""

import os
import subprocess
import sys
from pathlib import Path

import yaml
from click.testing import CliRunner, Result

from ml.settings.profile import ROOT


def dagster(
    home: Path, *arguments: str, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """`dagster job execute -j data ...` with its history in `home`; the first two arguments are the
    command's two words."""
    return subprocess.run(
        [sys.executable, "-m", "dagster", *arguments[:2], "-m", "orchestration.definitions"]
        + list(arguments[2:]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"DAGSTER_HOME": str(home)},
        timeout=timeout,
    )


def dagster_here(home: Path, *arguments: str) -> Result:
    """The same command in this process, which has imported Dagster and the definitions already: 3
    s of a processor that a process of its own takes."""
    from dagster._cli import cli

    command = [*arguments[:2], "-m", "orchestration.definitions", *arguments[2:]]
    return CliRunner().invoke(cli, command, env={"DAGSTER_HOME": str(home)})


def run_config(folder: Path, **project: str) -> str:
    """A run configuration's file for the resource `project`."""
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({"resources": {"project": {"config": project}}}))
    return str(file)
