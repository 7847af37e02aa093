"""What the run says of each class, a row each, for a table that sorts."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ml.words.cells import CELLS
from ml.words.vocabulary import Vocabulary

COLUMNS = {
    "class": "class",
    "words": "masks",
    "alone": "IoU alone, %",
    "beside": "IoU beside another, %",
    "daam": "DAAM alone, %",
    "segmenter": "segmenter IoU, %",
    "bound": "bound IoU, %",
    "accepted": "triplets",
    "rejected": "rejected",
    "pictures": "synthetic pictures",
    "precision": "judged right, %",
}
"""Key of a row -> its heading."""


def _words(name: str, vocabulary: Vocabulary) -> str:
    """Whose masks of a class were trained on."""
    if name in vocabulary.labelled:
        return "labelled"
    return "seen" if name in vocabulary.seen else "unseen"


def class_rows(
    vocabulary: Vocabulary, facts: Mapping[str, Any], judged: Sequence[dict]
) -> list[dict]:
    """One row a class with the keys of COLUMNS, None where the run has no figure, and `interval`
    beside `precision`.

    facts: by stage. judged: rows of `ml.pipeline.audit.precision`, the one over all last.
    """
    triplets, segmentation = facts["triplets"], facts["benchmark_scores"]
    accepted = [own.get("accepted_by_class", {}) for own in triplets.get("subsets", {}).values()]
    rejected = triplets.get("rejected_by_class", {}).values()
    recorded = bool(accepted)
    accepted.append(triplets.get("labelled", {}).get("accepted_by_class", {}))  # a user's own
    pictures = facts["synthetic_dataset"].get("pictures_by_class", {})
    right = {row["class"]: row for row in judged[:-1]}
    return [
        {
            "class": name,
            "words": _words(name, vocabulary),
            "alone": _iou(facts["grounding_scores"], "ours", name, 1),
            "beside": _iou(facts["grounding_scores"], "ours", name, 2),
            "daam": _iou(facts["grounding_scores"], "daam", name, 1),
            "segmenter": segmentation.get("synthetic", {}).get("per_class", {}).get(name),
            "bound": segmentation.get("real_upper_bound", {}).get("per_class", {}).get(name),
            "accepted": sum(own.get(name, 0) for own in accepted) if recorded else None,
            "rejected": sum(own.get(name, 0) for own in rejected) if recorded else None,
            "pictures": pictures.get(name),
            "precision": right[name]["precision"] if name in right else None,
            "interval": right.get(name),
        }
        for name in vocabulary.classes
    ]


def _iou(grounding: Mapping[str, Any], method: str, name: str, objects: int) -> float | None:
    """Mean over the cells of so many objects in which the class has masks."""
    cells = grounding.get("per_class", {}).get(method, {})
    found = [
        cells[key][name]
        for key, cell in CELLS.items()
        if cell.objects == objects and name in cells.get(key, {})
    ]
    return fmean(found) if found else None
