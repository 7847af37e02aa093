"""Labelled photographs from a local folder: PASCAL VOC 2012, COCO 2017, a user's own.

A source is a class with the attributes and methods of `shared.LabelledPhotos`; the literal table
names them. Everything a stranger may have got wrong is said before any work: `open_source` looks
at the layout, `check` at the pictures. Not here: what the stages make of the pictures.
"""

from pathlib import Path

from ml.datasets.coco import Coco2017
from ml.datasets.folder import OwnFolder
from ml.datasets.shared import (
    LabelledPhotos,
    NoSuchPart,
    Sample,
    check,
    class_table,
    described,
    digest,
    labelled_classes,
    read,
)
from ml.datasets.voc import Voc2012
from ml.settings.sections import BenchmarkParams

# benchmark.source: class. Each is made from (root, part), part being "test" or "train".
SOURCES = {"voc2012": Voc2012, "coco2017": Coco2017, "folder": OwnFolder}

__all__ = [
    "LabelledPhotos",
    "NoSuchPart",
    "SOURCES",
    "Sample",
    "check",
    "class_table",
    "data_digest",
    "described",
    "labelled_classes",
    "open_source",
    "read",
]


def open_source(benchmark: BenchmarkParams, part: str, root: str) -> LabelledPhotos:
    """One part of the real data that `benchmark:` names. root: `benchmark.root`, resolved.

    Raises ValueError for a layout that is not the source's, NoSuchPart where a user's folder has
    no training part.
    """
    if not Path(root).is_dir():
        raise ValueError(
            f"benchmark.root: no folder {root}; expected the local copy of "
            f"{benchmark.source} there (nothing is downloaded), or set "
            "benchmark.source: none to go without real pictures"
        )
    return SOURCES[benchmark.source](Path(root), part)


def data_digest(benchmark: BenchmarkParams, part: str, root: str) -> str | None:
    """What a stage's recipe says of the real data; None where there is none to read."""
    if benchmark.source not in SOURCES:
        return None
    try:
        return digest(open_source(benchmark, part, root))
    except NoSuchPart:
        return "no such part"
