"""What all command lines share: their parser, and arguments that are refused before any work."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ml.errors import EXIT_CODES
from ml.settings.profile import ROOT
from ml.store.places import EXPECTED, is_address, is_remote, place_of

Number = TypeVar("Number", int, float)


def make_parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A parser whose --help also has the exit codes, and which refuses an empty value of every
    option of no type or of type Path: an unset variable of the shell is no way to leave one out."""
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=EXIT_CODES)
    parser.register("type", None, filled)
    parser.register("type", Path, filled_path)
    return parser


def filled(given: str) -> str:
    """Text that says something."""
    if not given.strip():
        raise argparse.ArgumentTypeError("expected a value, got nothing (an unset variable?)")
    return given


def filled_path(given: str) -> Path:
    """A path, of which `~` is the user's folder."""
    return Path(os.path.expanduser(filled(given)))


def add_profile(parser: argparse.ArgumentParser, default: str = "micro") -> None:
    parser.add_argument(
        "--profile",
        type=os.path.expanduser,
        default=default,
        help=f"name in profiles/ or a YAML file (default {default})",
    )


def add_root(parser: argparse.ArgumentParser, help: str = "folder that holds data/") -> None:
    """For commands that need a local folder."""
    parser.add_argument("--root", type=folder, default=ROOT, help=help)


def add_workspace(parser: argparse.ArgumentParser) -> None:
    """For commands that take a workspace wherever it lies (docs/object-stores.md)."""
    parser.add_argument(
        "--root",
        type=workspace_root,
        default=ROOT,
        help=f"what holds data/: {EXPECTED} (default: the checkout)",
    )


def workspace_root(text: str) -> Path:
    """A folder, or an address on an object store, which is not asked yet."""
    if not is_address(text):
        return folder(text)
    try:
        place = place_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None  # without the text: it may be secret
    return place if is_remote(place) else folder(str(place))


def folder(text: str) -> Path:
    """A folder that is there or can be made."""
    path = Path(os.path.expanduser(text))
    if not text.strip():
        raise argparse.ArgumentTypeError("expected a folder, got nothing (an unset variable?)")
    if is_address(text):
        raise argparse.ArgumentTypeError("expected a folder of this machine, got an address")
    there = next(p for p in (path, *path.absolute().parents) if os.path.lexists(p))
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"expected a folder, but {there} is none")
    return path


def new_file(text: str) -> Path:
    """A file that can be written: a name, in a folder that is there or can be made."""
    path = Path(os.path.expanduser(text))
    if not text.strip() or not path.name or path.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file, got {text!r}")
    folder(str(path.absolute().parent))
    return path


def number(kind: type[Number], low: float, high: float = 10**9) -> Callable[[str], Number]:
    """A number of a kind (int, float) from `low` to `high`; NaN and infinity are none."""

    def read(text: str) -> Number:
        value: Number | None
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            name = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"expected {name} from {low:,} to {high:,}, got {text!r}"
            )
        return value

    return read
