"""A user's own pictures as a data set of the Hugging Face hub: Parquet files with `Image` features.

    data/train-00000-of-00001.parquet    in data/ or in the folder itself
    id2label.json    {"0": "background", "1": "forklift"}, where the files' features name no classes

The pictures are the column `image`, the label maps the only other column of pictures (or the one
that is called label, mask, annotation or the like). Classes are the names of a ClassLabel among the
features: with `background` first its place is the label, else the first class is label 1.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ml.datasets.class_lists import BACKGROUND
from ml.datasets.listing import is_junk
from ml.datasets.own_splits import of_part, split_of
from ml.datasets.packed import Content, PackedFiles, numbered, require_whole
from ml.store.reading import read_object

MAPS = ("label", "mask", "annotation", "label_map", "segmentation", "segmentation_mask", "labels")
"""Names of columns of label maps, the usual one first."""
NAMES = "id2label.json"


def parquet_files(root: Path) -> list[Path]:
    files = [*root.glob("*.parquet"), *root.glob("data/*.parquet")]
    return sorted(path for path in files if not is_junk(path))


class OwnHub(PackedFiles):
    """A part of such a folder; see `protocol.LabelledPhotos` for what it offers."""

    hint = "write Parquet files with a column `image` and one of label maps"

    def __init__(self, root: Path, part: str):
        super().__init__(root, part)
        found = [(split_of(path.stem), path) for path in parquet_files(self.root)]
        if not found:
            raise ValueError(f"{self.root}: no Parquet file in it, nor in data/ below it")
        self.files = of_part(found, part, self.title)
        require_whole(self.files)
        self.schemas = {path: _schema_of(path) for path in self.files}
        self.columns = self._columns()
        self.names = self._names()
        self._kept: tuple[tuple[Path, int], pa.Table] | None = None

    def _columns(self) -> tuple[str, str]:
        """The columns of pictures and of label maps, which are in every file."""
        chosen = {path: _columns_of(path, schema) for path, schema in self.schemas.items()}
        first = self.files[0]
        if other := next((path for path in self.files if chosen[path] != chosen[first]), None):
            raise ValueError(
                f"{other}: its label maps are the column {chosen[other][1]}, those of {first.name} "
                f"{chosen[first][1]}; expected one. Write the files together"
            )
        return chosen[first]

    def _names(self) -> dict[int, str]:
        file = self.root / NAMES
        if file.is_file():
            values = read_object(file)
            if not all(key.isdecimal() for key in values):
                raise ValueError(f'{file}: expected {{"0": "background", "1": "forklift", ...}}')
            return numbered({int(key): name for key, name in values.items()}, file)
        lists = {path: _names_of(path, schema) for path, schema in self.schemas.items()}
        found = lists[self.files[0]]
        if other := next((path for path in self.files if lists[path] != found), None):
            raise ValueError(
                f"{other}: its features name other classes than those of {self.files[0].name}; "
                f"expected one list for all files, or {NAMES} in {self.root}"
            )
        if len(found) != 1:
            raise ValueError(
                f"{self.files[0]}: {'no' if not found else 'several different'} class names among "
                f"its features; expected one ClassLabel, or {NAMES} in {self.root} "
                '({"0": "background", "1": "forklift", ...})'
            )
        (names,) = found
        first = 0 if str(names[0]).casefold() in BACKGROUND else 1
        return numbered(dict(enumerate(names, start=first)), self.files[0])

    @cached_property
    def _places(self) -> dict[str, tuple[Path, int, int]]:
        """Key -> file, group of rows, row in it."""
        places: dict[str, tuple[Path, int, int]] = {}
        for path in self.files:
            with _reading(path):
                about = pq.ParquetFile(path).metadata
                groups = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
            for group, rows in enumerate(groups):
                for row in range(rows):
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
            with _reading(path):
                table = pq.ParquetFile(path).read_row_group(group, columns=list(self.columns))
            self._kept = (path, group), table
        column = self._kept[1].column(self.columns[0 if what == "picture" else 1])
        with _reading(path):
            data: bytes | None = (column[row].as_py() or {}).get("bytes")
        if not data:
            raise ValueError(
                f"{path}, {key}: no bytes of the {what}; expected pictures inside the file, not "
                "paths. Write it with `datasets`, embedded"
            )
        return data

    def name_files(self) -> list[Path]:
        return [path for path in [self.root / NAMES] if path.is_file()]


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What pyarrow raises of a damaged file, of several kinds, as ValueError that names it."""
    try:
        yield
    except MemoryError:
        raise
    except (pa.ArrowException, IndexError, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the file
            raise
        raise ValueError(
            f"{path} cannot be read ({' '.join(str(error).split())[:200]}); expected a whole "
            "Parquet file: half a download? Get it again"
        ) from error


def _schema_of(path: Path) -> pa.Schema:
    with _reading(path):
        return pq.read_schema(path)


def _columns_of(path: Path, schema: pa.Schema) -> tuple[str, str]:
    pictures = [field.name for field in schema if _is_picture(field.type)]
    maps = [name for name in pictures if name != "image"]
    chosen = next((name for name in MAPS if name in maps), maps[0] if len(maps) == 1 else None)
    if "image" not in pictures or chosen is None:
        raise ValueError(
            f"{path}: expected a column `image` and one of label maps (called "
            f"{', '.join(MAPS[:3])}), both {{bytes, path}} as `datasets` writes pictures; got "
            f"the columns {', '.join(schema.names)}"
        )
    return "image", chosen


def _names_of(path: Path, schema: pa.Schema) -> list[list[Any]]:
    """The different lists of class names among a file's features."""
    note = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        lists = _class_names(json.loads(note))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: its metadata `huggingface` is no JSON ({error}); expected the features as "
            f"`datasets` writes them. Get the file again, or write {NAMES} beside it"
        ) from error
    return [names for place, names in enumerate(lists) if names not in lists[:place]]


def _is_picture(kind: pa.DataType) -> bool:
    """Whether a column is of `datasets`' feature Image: {bytes, path}."""
    if not pa.types.is_struct(kind) or not {"bytes", "path"} <= {field.name for field in kind}:
        return False
    own = kind.field("bytes").type
    return bool(pa.types.is_binary(own) or pa.types.is_large_binary(own) or pa.types.is_null(own))


def _class_names(value: Any) -> list[list[Any]]:
    """The names of every ClassLabel in a description of features."""
    if isinstance(value, list):
        return [names for one in value for names in _class_names(one)]
    if not isinstance(value, dict):
        return []
    names = value.get("names")
    if value.get("_type") == "ClassLabel" and isinstance(names, list) and names:
        return [names]
    return [names for one in value.values() for names in _class_names(one)]
