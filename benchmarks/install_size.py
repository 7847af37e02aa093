"""What an installation costs: a fresh environment, the library alone, then each extra on top of it.

    python -m benchmarks.install_size [--python python3.13] [--keep FOLDER]

Builds the project's wheel from a copy of the checkout and installs it with the versions of
constraints.txt. Prints a Markdown row for each step: seconds of pip, and what it added to the
environment. The seconds include the downloads, so they move with the network.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from ml.errors import exit_path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = (
    "ml",
    "orchestration",
    "profiles",
    "params.yaml",
    "pyproject.toml",
    "setup.py",
    "constraints.txt",
    "README.md",
    "LICENSE",
)
EXTRAS = tuple(
    tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
)


def copy_source(target: Path) -> Path:
    """What a wheel is built from; not in place, since building leaves folders beside it."""
    for name in SOURCE:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, (target / name))
    return target


def size(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())


def count(python: Path) -> int:
    """Distributions of an environment."""
    code = "import importlib.metadata as m; print(len(list(m.distributions())))"
    return int(subprocess.run([python, "-c", code], capture_output=True, check=True).stdout)


def measure(python: str, folder: Path) -> None:
    source = folder / "source"
    source.mkdir(parents=True)
    subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)
    own = folder / "venv" / "bin" / "python"
    pip = [str(own), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "-w", str(folder), str(copy_source(source))], check=True
    )
    wheel = next(folder.glob("*.whl"))
    before, packages = size(folder / "venv"), count(own)
    print("| | packages | size | seconds |\n|---|---|---|---|")
    for extra in ("", *EXTRAS):
        asked = f"{wheel}[{extra}]" if extra else str(wheel)
        start = time.monotonic()
        subprocess.run([*pip, "install", "-c", str(ROOT / "constraints.txt"), asked], check=True)
        seconds = time.monotonic() - start
        after, now = size(folder / "venv"), count(own)
        row = (f"+ {now - packages}", f"{(after - before) / 1e6:,.0f} MB", f"{seconds:.0f}")
        print("| " + " | ".join([f"`[{extra}]`" if extra else "the library", *row]) + " |")
        sys.stdout.flush()
        before, packages = after, now
    subprocess.run([*pip, "check"], check=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=sys.executable, help="of which version to try it")
    parser.add_argument("--keep", type=Path, help="leaves the environment in this folder")
    args = parser.parse_args(arguments)
    if args.keep:
        measure(args.python, args.keep.resolve())
        return
    with tempfile.TemporaryDirectory() as scratch:
        measure(args.python, Path(scratch))


if __name__ == "__main__":
    sys.exit(exit_path(main)())
