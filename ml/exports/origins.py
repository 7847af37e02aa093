"""`pictures.csv`: where each picture comes from, for formats that have no place for it."""

import csv
from pathlib import Path

from ml.exports.about import About
from ml.exports.pictures import Picture


class Origins:
    """Writes the table a picture at a time."""

    def __init__(self, folder: Path, about: About) -> None:
        self.names = list(about.origin.values())
        self.file = (folder / "pictures.csv").open("w", encoding="utf-8", newline="")
        self.rows = csv.writer(self.file)
        self.rows.writerow(["key", "split", *self.names])

    def add(self, picture: Picture) -> None:
        own = (picture.origin[name] for name in self.names)
        self.rows.writerow([picture.key, picture.split, *own])

    def finish(self) -> None:
        self.file.close()
