"""A user's own pictures as a data set of the Hugging Face hub: Parquet files with `Image` features.

    data/train-00000-of-00001.parquet    in data/ or in the folder itself
    id2label.json    {"0": "background", "1": "forklift"}, where the files' features name no classes

The pictures are the column `image`, the label maps the only other column of pictures (or the one
that is called label, mask, annotation or the like). Classes are the names of a ClassLabel among the
features: with `background` first its place is the label, else the first class is label 1.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml.datasets.class_lists import BACKGROUND
from ml.datasets.own_splits import of_part, split_of
from ml.datasets.packed import Content, PackedFiles, numbered
from ml.store.reading import read_object

MAPS = ("label", "mask", "annotation", "label_map", "segmentation", "segmentation_mask", "labels")
"""Names of columns of label maps, the usual one first."""
NAMES = "id2label.json"


def parquet_files(root: Path) -> list[Path]:
    return sorted([*root.glob("*.parquet"), *root.glob("data/*.parquet")])


class OwnHub(PackedFiles):
    """A part of such a folder; see `protocol.LabelledPhotos` for what it offers."""

    hint = "write Parquet files with a column `image` and one of label maps"

    def __init__(self, root: Path, part: str):
        super().__init__(root, part)
        found = [(split_of(path.stem), path) for path in parquet_files(self.root)]
        if not found:
            raise ValueError(f"{self.root}: no Parquet file in it, nor in data/ below it")
        self.files = of_part(found, part, self.title)
        self.schema = pq.read_schema(self.files[0])
        self.columns = self._columns()
        self.names = self._names()
        self._kept: tuple[tuple[Path, int], pa.Table] | None = None

    def _columns(self) -> tuple[str, str]:
        """The columns of pictures and of label maps."""
        pictures = [field.name for field in self.schema if _is_picture(field.type)]
        maps = [name for name in pictures if name != "image"]
        chosen = next((name for name in MAPS if name in maps), maps[0] if len(maps) == 1 else None)
        if "image" not in pictures or chosen is None:
            raise ValueError(
                f"{self.files[0]}: expected a column `image` and one of label maps (called "
                f"{', '.join(MAPS[:3])}), both {{bytes, path}} as `datasets` writes pictures; got "
                f"the columns {', '.join(self.schema.names)}"
            )
        return "image", chosen

    def _names(self) -> dict[int, str]:
        file = self.root / NAMES
        if file.is_file():
            values = read_object(file)
            if not all(key.isdecimal() for key in values):
                raise ValueError(f'{file}: expected {{"0": "background", "1": "forklift", ...}}')
            return numbered({int(key): name for key, name in values.items()}, file)
        note = (self.schema.metadata or {}).get(b"huggingface", b"{}")
        lists = {tuple(names) for names in _class_names(json.loads(note))}
        if len(lists) != 1:
            raise ValueError(
                f"{self.files[0]}: {'no' if not lists else 'several different'} class names among "
                f"its features; expected one ClassLabel, or {NAMES} in {self.root} "
                '({"0": "background", "1": "forklift", ...})'
            )
        (names,) = lists
        first = 0 if str(names[0]).casefold() in BACKGROUND else 1
        return numbered(dict(enumerate(names, start=first)), self.files[0])

    @cached_property
    def _places(self) -> dict[str, tuple[Path, int, int]]:
        """Key -> file, group of rows, row in it."""
        places: dict[str, tuple[Path, int, int]] = {}
        for path in self.files:
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                for row in range(file.metadata.row_group(group).num_rows):
                    places[f"{path.stem}-{len(places):06d}"] = (path, group, row)
        return places

    @cached_property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._places)

    def place(self, key: str) -> Path:
        return self._places[key][0]

    def content(self, key: str, what: Content) -> bytes:
        path, group, row = self._places[key]
        if self._kept is None or self._kept[0] != (path, group):
            table = pq.ParquetFile(path).read_row_group(group, columns=list(self.columns))
            self._kept = (path, group), table
        column = self.columns[0 if what == "picture" else 1]
        data: bytes | None = (self._kept[1].column(column)[row].as_py() or {}).get("bytes")
        if not data:
            raise ValueError(
                f"{path}, {key}: no bytes of the {what}; expected pictures inside the file, not "
                "paths. Write it with `datasets`, embedded"
            )
        return data

    def name_files(self) -> list[Path]:
        return [path for path in [self.root / NAMES] if path.is_file()]


def _is_picture(kind: pa.DataType) -> bool:
    """Whether a column is of `datasets`' feature Image: {bytes, path}."""
    return pa.types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}


def _class_names(value: Any) -> list[list[str]]:
    """The names of every ClassLabel in a description of features."""
    if isinstance(value, list):
        return [names for one in value for names in _class_names(one)]
    if not isinstance(value, dict):
        return []
    if value.get("_type") == "ClassLabel" and value.get("names"):
        return [value["names"]]
    return [names for one in value.values() for names in _class_names(one)]
