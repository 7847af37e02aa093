"""What of a run goes into git: figures as JSON and the raw rows, `docs/paper/`, some MB in all.

The figures are the saved blocks with the captions of their pictures. The raw rows, one a mask or
whatever a study counts, are every table of `raw/` and the segmenters' confusions, so that anyone
can compute another figure or interval. With the recipes of both another checkout goes on from them
(`published`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml.store.files import atomic, read_json, write_json
from ml.studies.catalogue import STUDIES
from ml.studies.saved import load, path_of, to_plain
from ml.studies.scores import RAW
from ml.studies.study_run import StudyRun

MASKS = "masks"
"""Name of the file with all tables that have the columns `scores.RAW`; others keep their own."""
CONFUSIONS = "zero_shot_confusions"
"""Name of the file with the segmenters' confusions."""
SEGMENTER, SEED = "zero-shot-", "-seed"
"""A file of confusions is named SEGMENTER, the model, SEED and its seed."""
RECIPES = "recipes.json"
"""Recipes by name: of the `studies`' blocks and of the `tables`."""


def export(run: StudyRun) -> Path:
    """Writes `docs/paper/<study>.json` of every finished study, `docs/paper/raw/*.parquet` and the
    recipes of both, `docs/paper/recipes.json`. What is published and was not made in this run
    stays, unless the run has all studies.

    Returns the folder. Raises ValueError for a size that is not the full one: its figures are not
    to be published.
    """
    if run.size.name != "full":
        raise ValueError(
            f"expected the full size to export, got {run.size.name!r}; its results "
            f"stay in {run.folder}"
        )
    folder, raw = published_folder(run), run.folder / "raw"
    finished = {name: saved for name in STUDIES if (saved := load(run, name)) is not None}
    whole = len(finished) == len(STUDIES)
    before = {} if whole else read_recipes(folder)
    for name, saved in finished.items():
        write_json(folder / f"{name}.json", to_plain(saved, pictures=False))
    export_raw(raw, folder / "raw", keep=not whole)
    made = {
        "studies": {name: run.signed(path_of(run, name)) for name in finished},
        "tables": {path.stem: run.signed(path) for path in raw.glob("*.parquet")},
    }
    write_json(folder / RECIPES, {part: before.get(part, {}) | own for part, own in made.items()})
    return folder


def published_folder(run: StudyRun) -> Path:
    return Path(run.root) / "docs" / "paper"


def read_recipes(folder: Path) -> dict[str, dict[str, str | None]]:
    """`recipes.json`: of the `studies` and the `tables`, None for what was not finished; empty
    where nothing is published. Raises Damaged."""
    return read_json(folder / RECIPES, {"studies": dict, "tables": dict}) or {}


def export_raw(tables: Path, folder: Path, keep: bool = False) -> None:
    """Replaces the folder by the tables, compact: those of masks as one with a column `table`.

    keep: whether tables stay that are in the folder and not among these.
    """
    frames = {path.stem: pd.read_parquet(path) for path in tables.glob("*.parquet")}
    counted = [confusion_rows(path) for path in sorted(tables.glob(f"{SEGMENTER}*.npz"))]
    if keep:
        frames = read_raw(folder) | frames
        counted = [*_counted_before(folder, counted), *counted]
    frames = {name: frames[name] for name in sorted(frames, key="{}.parquet".format)}
    masks = [name for name, frame in frames.items() if set(RAW) <= set(frame.columns)]
    files = {name: frame for name, frame in frames.items() if name not in masks}
    if masks:
        files[MASKS] = pd.concat(
            [frames[name].assign(table=name) for name in masks], ignore_index=True
        )
    if counted:
        files[CONFUSIONS] = pd.concat(counted, ignore_index=True)
    if not files:
        for path in folder.glob("*.parquet"):
            path.unlink()
        return
    with atomic(folder, also="*.parquet") as temporary:
        temporary.mkdir()
        for name, frame in files.items():
            _write(compact(frame), temporary / f"{name}.parquet")


def read_raw(folder: Path) -> dict[str, pd.DataFrame]:
    """The tables that `export_raw` left in a folder, by name, in float32; not the confusions."""
    frames = {
        path.stem: _plain(pd.read_parquet(path))
        for path in sorted(folder.glob("*.parquet"))
        if path.stem != CONFUSIONS
    }
    if (masks := frames.pop(MASKS, None)) is not None:
        for name, own in masks.groupby("table"):
            # A table of other columns left these empty.
            frames[str(name)] = own.drop(columns="table").dropna(axis="columns", how="all")
    return frames


def _counted_before(folder: Path, counted: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The confusions in a folder, of segmenters that are not counted anew."""
    path = folder / f"{CONFUSIONS}.parquet"
    if not path.is_file():
        return []
    before = _plain(pd.read_parquet(path))
    anew = {(own.model.iloc[0], own.seed.iloc[0]) for own in counted}
    stays = [pair not in anew for pair in zip(before.model, before.seed, strict=True)]
    return [before[stays]]


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Text as objects, None where there is none."""
    text = {
        name: column.astype(object).where(column.notna(), None)
        for name, column in frame.select_dtypes("category").items()
    }
    return frame.assign(**text)


def confusion_rows(path: Path) -> pd.DataFrame:
    """A segmenter's confusions, one row a benchmark picture and pair of labels that has pixels:
    model, seed, picture (0..399), truth, predicted (labels of voc-zs3, 0 is background), pixels."""
    model, _, seed = path.stem.removeprefix(SEGMENTER).rpartition(SEED)
    with np.load(path) as stored:
        counts = stored["confusions"]
    picture, truth, predicted = counts.nonzero()
    return pd.DataFrame(
        {
            "model": model,
            "seed": int(seed),
            "picture": picture,
            "truth": truth,
            "predicted": predicted,
            "pixels": counts[picture, truth, predicted],
        }
    )


def compact(frame: pd.DataFrame) -> pd.DataFrame:
    """The same rows: text as categories, float64 as float32, whole numbers as small as they fit."""
    out = {}
    for name, column in frame.items():
        if column.dtype == np.float64:
            column = column.astype(np.float32)
        elif pd.api.types.is_integer_dtype(column):
            column = pd.to_numeric(column, downcast="integer")
        elif column.map(lambda value: value is None or isinstance(value, str)).all():
            column = column.astype("category")
        out[name] = column
    return pd.DataFrame(out)


def _write(frame: pd.DataFrame, path: Path) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    floats = [field.name for field in table.schema if pa.types.is_float32(field.type)]
    others = [field.name for field in table.schema if field.name not in floats]
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=others,
        column_encoding=dict.fromkeys(floats, "BYTE_STREAM_SPLIT") or None,
    )
