"""What happens to files: every way in which one is damaged here, for tests of what then happens."""

from collections.abc import Callable
from pathlib import Path

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "deleted": lambda data: None,
    "empty": lambda data: b"",
    "{}": lambda data: b"{}",
    "[]": lambda data: b"[]",
    "half": lambda data: data[: len(data) // 2],
    "cut off": lambda data: data[: len(data) * 9 // 10],
    "flipped": lambda data: flipped(data, len(data) // 2),
}


def flipped(data: bytes, place: int) -> bytes:
    """The data with the lowest bit of one byte changed."""
    return data and data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def spoil(path: Path, how: str) -> None:
    """Damages a file; another name of it (a hard link) keeps what it was."""
    data = DAMAGES[how](path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
