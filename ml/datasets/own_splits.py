"""Which parts a user's data set has, by the names of its files: train, val, test, or none."""

import re
from collections.abc import Sequence
from typing import TypeVar

from ml.datasets.protocol import NoSuchPart

Item = TypeVar("Item")
NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of(name: str) -> str:
    """ "train" of "instances_train2017" or "train-00000-of-00001"; "" of a name without a part."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((NAMES[word] for word in words if word in NAMES), "")


def of_part(found: Sequence[tuple[str, Item]], part: str, title: str) -> list[Item]:
    """What belongs to a part: "test" (of a benchmark: test, else val, else all where nothing is
    split), "train", or "labels" (train, else all where nothing is split).

    found: (split, what) each, "" for what is of none. Raises NoSuchPart for a data set without a
    training part, ValueError for one that has nothing for a test, or nothing to learn from.
    """
    splits = {split for split, _ in found}
    wanted = {"test": ("test", "val", ""), "train": ("train",), "labels": ("train", "")}[part]
    chosen = next((split for split in wanted if split in splits), None)
    if chosen is not None:
        return [item for split, item in found if split == chosen]
    named = ", ".join(sorted(splits)) or "none"
    if part == "train":
        raise NoSuchPart(f"{title} has no training part (it has {named})")
    use = "be learned from" if part == "labels" else "be a test"
    raise ValueError(
        f"{title}: nothing in it may {use}: expected a split "
        f"{' or '.join(name for name in wanted if name)}, or no splits at all; found {named}"
    )
