"""WebDataset: tar files of samples, read from the first byte to the last.

    <split>-000000.tar     <key>.png, <key>.label.png, <key>.json

Samples lie in the order of the set: shuffle while reading.
"""

import json
from pathlib import Path
from typing import IO, Any

from webdataset import TarWriter

from ml.exports.about import About
from ml.exports.pictures import Picture
from ml.exports.writing import Writer

MOST, MOST_BYTES = 2000, 400_000_000
"""Samples and bytes of a tar file."""
READ = """\
import glob, webdataset

tars = sorted(glob.glob("{folder}/{split}-*.tar"))
for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"):
    label = sample["label.png"][..., 0]  # its channels are equal; the prompt is in sample["json"]
"""


class FormatWriter(Writer):
    READ = READ

    def __init__(self, folder: Path, about: About, splits: tuple[str, ...]) -> None:
        self.tars = {name: _Tars(folder, name) for name in splits}
        self.classes = about.classes

    def add(self, picture: Picture) -> None:
        words = {str(label): self.classes[label - 1] for label in picture.labels}
        about = {"classes": words, **picture.origin}
        self.tars[picture.split].add(
            {
                "__key__": picture.key,
                picture.suffix: picture.data,
                "label.png": picture.label_data,
                "json": json.dumps(about, ensure_ascii=False).encode(),
            }
        )

    def finish(self) -> dict[str, Any]:
        return {"tar_files": sum(own.finish() for own in self.tars.values())}


class _Tars:
    """The tar files of a split."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.split = folder, split
        self.count = self.samples = 0
        self.file: IO[bytes] | None = None

    def add(self, sample: dict[str, Any]) -> None:
        if self.file is None:
            self.file = (self.folder / f"{self.split}-{self.count:06d}.tar").open("wb")
            self.tar = TarWriter(self.file, encoder=False, mtime=0.0)
        self.tar.write(sample)
        self.samples += 1
        if self.samples == MOST or self.file.tell() > MOST_BYTES:
            self._close()

    def _close(self) -> None:
        if self.file is not None:
            self.tar.close()
            self.file.close()
            self.file, self.samples, self.count = None, 0, self.count + 1

    def finish(self) -> int:
        self._close()
        return self.count
