"""torch's own files (.pth, .pt, .bin), which are pickles and could run anything: read by its loader
that can only make tensors, and refused where they ask for more.

Not here: which tensors a model wants, and what else a publisher's file holds.
"""

import pickle
import re
import zipfile
from pathlib import Path

import torch

DAMAGED = (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, IndexError, KeyError,
           TypeError, ValueError, OverflowError, OSError, MemoryError,
           zipfile.BadZipFile)  # fmt: skip
"""Errors of pickle and torch for damaged content. (An OSError too: torch seeks by offsets of the
content; that the file can be read has to be seen before. And a MemoryError: a damaged length asks
for more than there is.)"""

ASKED = (
    (r"GLOBAL (\S+)", r"\1"),  # what torch met and did not import
    (r"legacy \.tar format", "torch's oldest form, a .tar of pickles"),
    (r"Can only (?:create|build) .*but got <class '([^']+)'>", r"\1"),
)
"""What torch's loader says of a file that needs more than it makes, and what that is."""


class Refused(ValueError):
    """A weight file asked for more than tensors."""


def read_torch_file(file: Path) -> object:
    """What a file of torch's holds, tensors on the CPU; nothing in it is run.

    Raises Refused, naming what it asked for, when it needs more than tensors in dicts and lists,
    or holds packed parts; ValueError when it is damaged.
    """
    try:
        _refuse_packed(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Refused:
        raise
    except DAMAGED as error:
        if what := _asked(str(error)):
            raise Refused(more_than_tensors(file, what)) from error
        raise ValueError(damaged(file, f"{type(error).__name__} while reading")) from error


def _asked(said: str) -> str | None:
    for pattern, what in ASKED:
        if found := re.search(pattern, said):
            return found.expand(what)
    return None


def _refuse_packed(file: Path) -> None:
    """torch keeps its bytes unpacked: a packed part may hold a thousand times its size."""
    if not zipfile.is_zipfile(file):
        return  # an older torch's, or damaged
    with zipfile.ZipFile(file) as opened:
        parts = opened.infolist()
    if packed := [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED]:
        raise Refused(
            f"weight file {file} holds packed parts ({packed[0]!r:.60}), which torch.save does not "
            "write. Take the file from its publisher again, or use a .safetensors file"
        )


def more_than_tensors(file: Path, what: str) -> str:
    """The message for a file that asks for more than tensors."""
    return (
        f"weight file {file} holds more than tensors ({what}) and was refused; nothing in it "
        "was run. Take the file from its publisher again, or use a .safetensors file"
    )


def damaged(file: Path, why: str) -> str:
    """The message for a file that cannot be read through."""
    return (
        f"weight file {file} is damaged or half a download ({file.stat().st_size:,} bytes): "
        f"delete it and get it again ({why})"
    )
