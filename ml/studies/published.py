"""What `docs/` has of the studies, in a checkout that did not make them: shown on the page beside
what it made, and raw rows taken over into its run.

So that one study can be made, or made again, where the others' hours were not spent.
"""

import base64
from dataclasses import replace
from pathlib import Path

from ml.store.files import atomic, read_json
from ml.store.locks import FolderLock
from ml.studies.export import RECIPES, published_folder, read_raw, read_recipes
from ml.studies.saved import Saved, from_plain, recipe_of_blocks
from ml.studies.study_run import StudyRun


def picture_file(stem: str) -> str:
    """Name of a picture's file on the page. stem: its study and its number there, from 1, as
    "limits-3"."""
    return f"{stem}.jpg"


def read(run: StudyRun, name: str, images: Path) -> Saved | None:
    """A study as it is published, with the page's pictures, or None; `older` where that was with
    other settings than the run's. Raises ValueError for a picture that is not there."""
    folder = published_folder(run)
    value = read_json(folder / f"{name}.json", {"blocks": list})
    if value is None:
        return None
    for number, block in enumerate(value["blocks"], start=1):
        if block["kind"] == "picture":
            picture = images / picture_file(f"{name}-{number}")
            if not picture.is_file():
                raise ValueError(
                    f"expected {picture}, a picture of {folder / name}.json: bring docs/ back as "
                    "it was committed (git checkout docs), or make the study again"
                )
            block["jpeg"] = base64.b64encode(picture.read_bytes()).decode()
    recipe = read_recipes(folder).get("studies", {}).get(name)
    return replace(from_plain(value), older=recipe != recipe_of_blocks(run, name))


def take_over(run: StudyRun) -> list[str]:
    """Copies published tables into the run that it has not made. Gives their names.

    Such a table counts as made where the settings are those it was published with: its recipe came
    with it. One that was published without a recipe is left.

    Raises ValueError where nothing is published, Damaged for files of it that can't be read,
    WorkspaceBusy while another process makes studies of the same run.
    """
    folder, taken = published_folder(run), []
    recipes = read_recipes(folder).get("tables")
    if recipes is None:
        raise ValueError(
            f"expected {folder / RECIPES}, which a full run of all studies writes: there is "
            "nothing to take over, make them without --published"
        )
    with FolderLock(run.folder, "studies") as lock:
        lock.write()
        for name, frame in read_raw(folder / "raw").items():
            path, recipe = run.table_path(name), recipes.get(name)
            if recipe is None or (path.exists() and run.signed(path) is not None):
                continue
            with run.making(path, recipe), atomic(path) as temporary:
                frame.to_parquet(temporary, index=False, compression="zstd")
            taken.append(name)
    return taken
