"""A user's own pictures with masks, in one of several layouts, which is found out or named.

Not here: what is read of a layout (a module each), or what is made of the pictures.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from ml.datasets.folder import OwnFolder
from ml.datasets.photos import PhotoFiles

LAYOUTS: Mapping[str, Callable[[Path, str], PhotoFiles]] = {"folder": OwnFolder}
"""Name, as `triplets.labels_format` has it -> its class, made from (root, part)."""


def open_own(root: Path, part: str, layout: str = "auto") -> PhotoFiles:
    """One part of a user's own pictures.

    part: "test" and "train" of a benchmark, or "labels": what may be learned from, which is the
    training part where the folder has parts, and everything where it has none. Raises ValueError
    for a folder in no known layout, or in several; NoSuchPart where there is no such part.
    """
    return LAYOUTS["folder" if layout == "auto" else layout](Path(root), part)
