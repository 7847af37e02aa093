"""What `docs/` has of the studies, taken over into a run of this checkout, which goes on from it.

So that one study can be made or made again where the others' hours were not spent, and the page and
the export have them all. What is taken over counts as finished when its settings are the present
ones (its recipe was published with it); nothing that the run has is replaced.
"""

import base64
from pathlib import Path

import numpy as np
import pandas as pd

from ml.store.files import atomic, read_json, write_json
from ml.studies import sizes
from ml.studies.catalogue import STUDIES
from ml.studies.export import CONFUSIONS, MASKS, RECIPES, SEED, SEGMENTER
from ml.studies.page import picture_file, place
from ml.studies.saved import load, path_of
from ml.studies.study_run import StudyRun
from ml.words.vocabulary import load_vocabulary


def missing(run: StudyRun) -> list[str]:
    """Published studies that the run has not finished, so that its page would not show them."""
    folder = _folder(run)
    return [
        name for name in STUDIES if (folder / f"{name}.json").is_file() and load(run, name) is None
    ]


def blocks(run: StudyRun, name: str) -> dict | None:
    """A study as `docs/` has it, for `saved.from_plain`: its figures, and the page's pictures."""
    value = read_json(_folder(run) / f"{name}.json", {"blocks": list})
    if value is None:
        return None
    for number, block in enumerate(value["blocks"], start=1):
        if block["kind"] == "picture":
            picture = place(run).images / picture_file(f"{name}-{number}")
            block["jpeg"] = base64.b64encode(picture.read_bytes()).decode()
    return value


def take_over(run: StudyRun) -> list[str]:
    """Copies into the run what it lacks. Gives the names of the studies among it.

    Raises ValueError where nothing is published, Damaged for files of it that can't be read.
    """
    folder = _folder(run)
    recipes = read_json(folder / RECIPES, {"studies": dict, "tables": dict})
    if recipes is None:
        raise ValueError(
            f"expected {folder / RECIPES}, which a full run of all studies writes: there is "
            "nothing to take over, make them without --published"
        )
    for name, frame in _tables(folder / "raw").items():
        path = run.table_path(name)
        if not path.exists():
            with atomic(path) as temporary:
                frame.to_parquet(temporary, index=False, compression="zstd")
            _sign(run, path, recipes["tables"].get(name))
    for path, counts in _confusions(run, folder / "raw" / f"{CONFUSIONS}.parquet"):
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, confusions=counts)
    taken = [name for name in STUDIES if _take_blocks(run, name)]
    for name in taken:
        _sign(run, path_of(run, name), recipes["studies"].get(name))
    return taken


def _folder(run: StudyRun) -> Path:
    return Path(run.root) / "docs" / "paper"


def _sign(run: StudyRun, path: Path, recipe: str | None) -> None:
    if recipe is not None:
        run.sign(path, recipe)


def _take_blocks(run: StudyRun, name: str) -> bool:
    path = path_of(run, name)
    if path.exists() or (value := blocks(run, name)) is None:
        return False
    write_json(path, value)
    return True


def _tables(folder: Path) -> dict[str, pd.DataFrame]:
    """Published tables by name, as `export_raw` found them but for its float32."""
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


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    text = frame.select_dtypes("category").columns
    return frame.astype(dict.fromkeys(text, object))


def _confusions(run: StudyRun, file: Path):
    """Pairs of a file that the run lacks and its int32 (pictures, n+1, n+1). They have no label
    maps, so they are never finished: the study `zero_shot` would train these segmenters anew."""
    if not file.is_file():
        return
    rows, labels = pd.read_parquet(file), len(load_vocabulary(sizes.ZERO_SHOT).classes) + 1
    shape = (int(rows.picture.max()) + 1, labels, labels)
    for (model, seed), own in rows.groupby(["model", "seed"], observed=True):
        path = run.folder / "raw" / f"{SEGMENTER}{model}{SEED}{seed}.npz"
        if not path.exists():
            counts = np.zeros(shape, np.int32)
            counts[own.picture, own.truth, own.predicted] = own.pixels
            yield path, counts
