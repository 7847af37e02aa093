"""Pictures of the report that are worth a look: the worst masks, and what was rejected and why."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ml.images.contact_sheet import spread
from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.images.stored import load_pictures
from ml.pipeline.audit_sheet import thumbnail
from ml.pipeline.scored import read_masks
from ml.pipeline.workspace import Workspace
from ml.store.shards import read_rows, read_shards
from ml.store.sidecars import OWN

WORST = 12
A_REASON = 6
"""Pictures at most: of the worst, and of each reason of a rejection."""
_MASK = ["key", "entity", "word", "text", "rle"]


def worst_cards(workspace: Workspace, scores: pd.DataFrame) -> list[dict[str, Any]]:
    """The masks of the sim pictures with the lowest IoU, the worst first.

    scores: key, cell, entity, iou_ours (0..1) of each mask.

    Each: "word", "text", "iou" in percent, "cell", "judge", "ours": data URIs of the picture with
    the judge's and the module's mask; "ours" is None where the run did not keep the masks.
    """
    folder = workspace.folder("grounding_scores")
    scores = scores.nsmallest(WORST, "iou_ours").reset_index(drop=True)
    keys = list(scores.key)
    rows = read_rows(workspace.folder("triplets"), _MASK, keys)
    judged = rows.set_index(["key", "entity"])
    scores = scores[[pair in judged.index for pair in _pairs(scores)]]
    pictures = load_pictures(workspace.folder("images"), list(scores.key))
    masks = read_masks(folder, keys)
    cards = []
    for row in scores.itertuples():
        pair, image = (row.key, row.entity), pictures[row.key]
        own = judged.loc[pair]
        cards.append(
            {
                "word": own.word,
                "text": own.text,
                "iou": 100 * row.iou_ours,
                "cell": row.cell,
                "judge": thumbnail(image, _mask(own.rle, image)),
                "ours": masks and thumbnail(image, _mask(masks.get(pair, ""), image)),
            }
        )
    return cards


def rejected_triplets(workspace: Workspace) -> dict[str, list[dict[str, Any]]]:
    """By reason, pictures that `triplets` rejected: "word", "text", "image" each."""
    folder = workspace.folder("triplets")
    rows = read_shards(folder, ["key", "entity", "subset", "accepted", "reason"])
    chosen = _chosen(rows)
    shown = pd.concat([rows[:0], *chosen.values()])
    keys, own = list(shown.key), shown.subset == OWN
    pictures = load_pictures(workspace.folder("images"), list(shown.key[~own]))
    pictures |= load_pictures(folder / OWN, list(shown.key[own]))
    named = read_rows(folder, _MASK, keys)
    named = named.set_index(["key", "entity"])
    return {
        reason: [
            {
                "word": named.word[pair],
                "text": named.text[pair],
                "image": thumbnail(pictures[pair[0]], _mask(named.rle[pair], pictures[pair[0]])),
            }
            for pair in _pairs(own)
        ]
        for reason, own in chosen.items()
    }


def rejected_synthetic(
    workspace: Workspace, labels: Mapping[str, int]
) -> dict[str, list[dict[str, Any]]]:
    """By reason, pictures that `synthetic_dataset` rejected, as `rejected_triplets`.

    labels: of the classes in the label maps.
    """
    folder = workspace.folder("synthetic_dataset")
    rows = read_shards(folder, ["key", "accepted", "reason"])
    chosen = _chosen(rows)
    keys = [key for own in chosen.values() for key in own.key]
    columns = ["key", "text", "words", "entities", "image", "label"]
    named = read_rows(folder, columns, keys).set_index("key")
    return {
        reason: [
            {
                "word": " + ".join(named.words[key]),
                "text": named.text[key],
                "image": thumbnail(
                    decode_png(named.image[key]),
                    np.isin(decode_png(named.label[key]), [labels[n] for n in named.entities[key]]),
                ),
            }
            for key in own.key
        ]
        for reason, own in chosen.items()
    }


def _chosen(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Of each reason a few rows, spread over all of it."""
    rejected = rows[~rows.accepted.astype(bool)]
    return {
        str(reason): own.iloc[spread(len(own), A_REASON)]
        for reason, own in rejected.groupby("reason")
    }


def _pairs(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return list(zip(rows.key, rows.entity, strict=True))


def _mask(rle: str, image: np.ndarray) -> np.ndarray:
    """bool (H,W), empty where there is no mask."""
    return decode_rle(rle) if rle else np.zeros(image.shape[:2], bool)
