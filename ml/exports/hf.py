"""A data set of the Hugging Face hub: Parquet with `Image` features and a data card.

    README.md
    data/<split>-00000.parquet

The features are of the library `datasets`, which reads them out of the files' schema; rows are
written as they come, a group of GROUP at a time.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Features, Image, List, Value

from ml.exports.about import About
from ml.exports.pictures import Picture
from ml.exports.writing import Writer

GROUP, MOST_BYTES = 100, 400_000_000
"""Rows that a reader fetches at once, and bytes of a file, as the hub recommends them."""
READ = """\
from datasets import load_dataset

pictures = load_dataset("{folder}", split="{split}")  # image, label, classes, ...
"""


class FormatWriter(Writer):
    READ = READ

    def __init__(self, folder: Path, about: About, splits: tuple[str, ...]) -> None:
        (folder / "data").mkdir()
        names = ["background", *about.classes]
        self.about, self.splits = about, splits
        columns = {
            name: Value("int64" if name == "seed" else "string") for name in about.origin.values()
        }
        features = Features(
            {
                "key": Value("string"),
                "image": Image(),
                "label": Image(),
                "classes": List(ClassLabel(names=names)),
                **columns,
            }
        )
        self.files = {name: _Files(folder / "data", name, features.arrow_schema) for name in splits}

    def add(self, picture: Picture) -> None:
        self.files[picture.split].add(
            {
                "key": picture.key,
                "image": {"bytes": picture.data, "path": f"{picture.key}.{picture.suffix}"},
                "label": {"bytes": picture.label_data, "path": f"{picture.key}.png"},
                "classes": picture.labels,
                **picture.origin,
            }
        )

    def finish(self) -> dict[str, Any]:
        for own in self.files.values():
            own.finish()
        return {}

    def front_matter(self) -> dict[str, Any]:
        licences = self.about.licences
        data = [{"split": name, "path": f"data/{name}-*.parquet"} for name in self.splits]
        return {
            "pretty_name": self.about.name,
            "license": licences[0].tag if licences else "other",
            "task_categories": ["image-segmentation"],
            "tags": ["semantic-segmentation", "machine-generated"],
            "configs": [{"config_name": "default", "data_files": data}],
        }


class _Files:
    """The Parquet files of a split."""

    def __init__(self, folder: Path, split: str, schema: pa.Schema) -> None:
        self.folder, self.split, self.schema = folder, split, schema
        self.rows: list[dict[str, Any]] = []
        self.count = self.written = 0
        self.file: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        if len(self.rows) == GROUP:
            self._flush()

    def _flush(self) -> None:
        if not self.rows:
            return
        if self.file is None:
            path = self.folder / f"{self.split}-{self.count:05d}.parquet"
            self.file = pq.ParquetWriter(path, self.schema, compression="zstd")
        table = pa.Table.from_pylist(self.rows, self.schema)
        self.file.write_table(table)
        self.written += table.nbytes
        self.rows = []
        if self.written > MOST_BYTES:
            self._close()

    def _close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file, self.written, self.count = None, 0, self.count + 1

    def finish(self) -> None:
        self._flush()
        self._close()
