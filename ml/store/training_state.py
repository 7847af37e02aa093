"""The checkpoint from which a training continues after a kill: written atomically, with a digest.

A file is one line with the sha256 of the rest, then what `torch.save` writes. Not here: what is in
it.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from ml.store.files import atomic, say

_TITLE = b"training state, sha256 "


def save_state(file: Path, state: dict[str, Any]) -> None:
    """Writes tensors and plain data, in place of an earlier state."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getbuffer()
    with atomic(file) as temporary, temporary.open("wb") as handle:
        handle.write(_TITLE + hashlib.sha256(content).hexdigest().encode() + b"\n")
        handle.write(content)


def load_state(file: Path) -> dict[str, Any] | None:
    """What `save_state` left, on the CPU; None where there is nothing.

    A file that is cut off or changed counts as none, with a warning on stderr: the training starts
    again from its beginning.
    """
    if not file.is_file():
        return None
    data = file.read_bytes()
    title, _, content = data.partition(b"\n")
    if title != _TITLE + hashlib.sha256(content).hexdigest().encode():
        say(
            f"{file} is damaged, or of an earlier version: the training starts again from its "
            "beginning"
        )
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return state
