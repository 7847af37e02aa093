"""Labelled pictures: PASCAL VOC 2012, COCO 2017, a user's own, and the drawn world.

A source is a class with what `protocol.LabelledPictures` names; the literal table lists them.
Whatever may be wrong with one is reported before any work: `open_source` looks at the layout,
`check` at the pictures. Not here: what the stages make of the pictures.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ml.datasets.coco import Coco2017
from ml.datasets.drawn import DrawnWorld
from ml.datasets.own import open_own
from ml.datasets.protocol import LabelledPictures, NoSuchPart
from ml.datasets.voc import Voc2012
from ml.settings.sections import BenchmarkParams

SOURCES: Mapping[str, Callable[[Path, str], LabelledPictures]] = {
    "drawn": DrawnWorld,
    "voc2012": Voc2012,
    "coco2017": Coco2017,
    "folder": open_own,
}
"""benchmark.source -> its class. Each is made from (root, part), part being "test" or "train"."""


def open_source(benchmark: BenchmarkParams, part: str, root: str | None) -> LabelledPictures:
    """One part, "test" or "train", of the labelled pictures that `benchmark:` names.

    root: `benchmark.root`, resolved; None for a source that reads no folder. Raises ValueError for
    a layout that is not the source's, NoSuchPart for source none and where a user's folder has no
    training part.
    """
    if benchmark.source == "none":
        raise NoSuchPart("benchmark.source is none: no real pictures")
    if root is not None and not Path(root).is_dir():
        raise ValueError(
            f"benchmark.root: no folder {root}; expected the local copy of "
            f"{benchmark.source} there (nothing is downloaded), or set "
            "benchmark.source: none to go without real pictures"
        )
    return SOURCES[benchmark.source](Path(root or "."), part)


def data_digest(benchmark: BenchmarkParams, part: str, root: str | None) -> str | None:
    """What a stage's recipe records of data on disk: its digest, "no such part", or None for a
    source that reads none."""
    if benchmark.source == "none":
        return None
    try:
        return open_source(benchmark, part, root).digest()
    except NoSuchPart:
        return "no such part"
