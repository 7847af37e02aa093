"""The pictures on which the synthetic segmenter did worst, with their true labels."""

from typing import Any

import numpy as np

from ml.images.overlays import IGNORED
from ml.images.png import decode_png
from ml.metrics.iou import iou_per_class, nanmean
from ml.pipeline.audit_sheet import thumbnail
from ml.pipeline.workspace import Workspace
from ml.store.shards import read_frame, read_rows
from ml.words.vocabulary import Vocabulary

WORST = 8
"""Pictures at most."""


def worst_pictures(
    workspace: Workspace, vocabulary: Vocabulary, held_out: bool
) -> list[dict[str, Any]]:
    """The lowest mean IoU over a picture's true classes first: "miou" in percent, "classes": names
    with their IoU, "image": a data URI of the picture, its true labels tinted.

    held_out: the scores are of synthetic pictures, since there is no benchmark. Pictures without a
    class are left out.
    """
    file = workspace.folder("benchmark_scores") / "scores.parquet"
    rows = read_frame(file, filters=[("model", "==", "synthetic")])
    side = len(vocabulary.classes) + 1
    stack = np.array(list(rows.confusion), np.int64).reshape(-1, side, side)
    ious = np.where(stack.sum(2) > 0, iou_per_class(stack), np.nan)[:, 1:]
    means = nanmean(ious)
    order = [int(i) for i in np.argsort(means, kind="stable") if not np.isnan(means[i])][:WORST]
    keys = [str(rows.key.iloc[i]) for i in order]
    folder = workspace.folder("synthetic_dataset" if held_out else "benchmark")
    stored = read_rows(folder, ["key", "image", "label"], keys)
    found = {row.key: (row.image, row.label) for row in stored.itertuples()}
    return [
        {
            "miou": 100 * means[i],
            "classes": [
                (vocabulary.classes[c], 100 * ious[i, c])
                for c in np.flatnonzero(~np.isnan(ious[i]))
            ],
            "image": _tinted(*found[key]),
        }
        for i, key in zip(order, keys, strict=True)
        if key in found
    ]


def _tinted(image: bytes, label: bytes) -> str:
    labels = decode_png(label)
    return thumbnail(decode_png(image), (labels > 0) & (labels != IGNORED))
