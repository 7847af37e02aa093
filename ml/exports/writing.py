"""What a format's writer offers."""

from pathlib import Path
from typing import Any, Protocol

from ml.exports.about import About
from ml.exports.pictures import Picture


class Writer(Protocol):
    """Writes a set into a folder of one format, a picture at a time.

    READ: Python lines that read the export, with "{folder}" and "{split}" in them.
    LOSES: what the format cannot hold, a sentence each.
    """

    READ: str
    LOSES: tuple[str, ...] = ()

    def __init__(self, folder: Path, about: About, splits: tuple[str, ...]) -> None:
        """folder: empty. Raises ValueError for splits that the format's readers do not take."""

    def add(self, picture: Picture) -> None:
        """The next one; keys come once each."""

    def finish(self) -> dict[str, Any]:
        """Closes all files. Returns what was measured on the way, plain data by name."""

    def front_matter(self) -> dict[str, Any]:
        """What stands at the head of the card as YAML; nothing for most formats."""
        return {}
