"""A labelled set in the formats that other tools read.

A format is a module with a writer (`ml.exports.writing`), imported when it is asked for: some need
packages of the extra `export`. Here: which there are. Not here: which pictures, labelled by which
model (`ml.cli.exporting`).
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command's --help needs the names alone
    from ml.exports.writing import Writer

FORMATS = {
    "coco": "ml.exports.coco",
    "voc": "ml.exports.voc",
    "yolo-seg": "ml.exports.yolo_seg",
    "hf": "ml.exports.hf",
    "webdataset": "ml.exports.webdataset",
}
"""--format -> its module."""


def writer_of(name: str) -> "type[Writer]":
    """The writer of a format. Raises ImportError where a package that it needs is missing."""
    try:
        found: type[Writer] = importlib.import_module(FORMATS[name]).FormatWriter
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the format {name} needs the package {error.name}: pip install '.[export]'"
        ) from error
    return found
