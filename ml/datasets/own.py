"""A user's own pictures with masks, in one of several layouts, which is found out or named.

Not here: what is read of a layout (a module each), or what is made of the pictures.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ml.datasets.folder import OwnFolder
from ml.datasets.own_coco import OwnCoco, annotation_files
from ml.datasets.own_hf import OwnHub, parquet_files
from ml.datasets.own_voc import OwnVoc, home_of
from ml.datasets.own_webdataset import OwnShards, tar_files
from ml.datasets.own_yolo import OwnYolo, settings_file
from ml.datasets.photos import PhotoFiles

LAYOUTS: Mapping[str, Callable[[Path, str], PhotoFiles]] = {
    "folder": OwnFolder,
    "voc": OwnVoc,
    "coco": OwnCoco,
    "yolo-seg": OwnYolo,
    "hf": OwnHub,
    "webdataset": OwnShards,
}
"""Name, as `triplets.labels_format` has it -> its class, made from (root, part)."""
SIGNS: Mapping[str, Callable[[Path], object]] = {
    "folder": lambda root: all((root / name).is_dir() for name in ("images", "masks")),
    "voc": home_of,
    "coco": annotation_files,
    "yolo-seg": settings_file,
    "hf": parquet_files,
    "webdataset": tar_files,
}
"""Layout -> whether a folder looks like it."""


def open_own(root: Path, part: str, layout: str = "auto", setting: str = "") -> PhotoFiles:
    """One part of a user's own pictures.

    part: "test" and "train" of a benchmark, or "labels": what may be learned from, which is the
    training part where the folder has parts, and everything where it has none. setting: where the
    user may name the layout, for the error about a folder that looks like several; "": nowhere.
    Raises ValueError for a folder in no known layout, or in several; NoSuchPart where there is no
    such part.
    """
    root = Path(root)
    return LAYOUTS[layout_of(root, setting) if layout == "auto" else layout](root, part)


def layout_of(root: Path, setting: str = "") -> str:
    """The layout that a folder looks like; `folder`, which then says what it lacks, for none.

    Raises ValueError for a folder that looks like several.
    """
    if SIGNS["folder"](root):  # what other tools leave beside it changes nothing
        return "folder"
    found = [name for name, sign in SIGNS.items() if sign(root)]
    if len(found) > 1:
        named = f"Name the one that is meant in {setting}, or keep" if setting else "Keep"
        raise ValueError(
            f"{root} may be read as {' or as '.join(found)}; expected one of them. {named} them in "
            "folders of their own"
        )
    return found[0] if found else "folder"
