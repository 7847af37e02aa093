"""Thumbnails of the benchmark, as `ml.images.leaks` compares them, of the folder its stage made.

Not here: those of the data set itself, for stages that do not read that folder (`labelled.py`).
"""

from ml.images.leaks import Thumbs, small, thumbnails
from ml.images.png import decode_png
from ml.pipeline.workspace import Workspace
from ml.store.shards import iter_shards


def stored_thumbs(workspace: Workspace, *, mirrored: bool = False) -> Thumbs:
    """Of every picture of the stage `benchmark`, none of an empty one. mirrored: and of their
    mirror images."""
    frames = iter_shards(workspace.folder("benchmark"), ["image"])
    pictures = (small(decode_png(data)) for frame in frames for data in frame.image)
    return thumbnails(pictures, mirrored=mirrored)
