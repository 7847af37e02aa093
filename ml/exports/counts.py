"""What an export holds, counted while it is written."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ml.exports.pictures import Picture
from ml.images.overlays import IGNORED


class Counts:
    """Pictures by split and label, pixels by label."""

    def __init__(self, classes: Sequence[str], splits: Sequence[str]) -> None:
        self.classes, self.splits = tuple(classes), tuple(splits)
        self.pictures: dict[str, Counter[int]] = {name: Counter() for name in splits}
        self.totals: Counter[str] = Counter()
        self.pixels = np.zeros(256, np.int64)

    def add(self, picture: Picture) -> None:
        self.pictures[picture.split].update(picture.labels)
        self.totals[picture.split] += 1
        self.pixels += np.bincount(picture.label.ravel(), minlength=256)

    def share(self, label: int) -> float:
        """Of all pixels, 0..1."""
        return float(self.pixels[label] / max(int(self.pixels.sum()), 1))

    def plain(self) -> dict[str, Any]:
        """Numbers by name, for `export.json`."""
        return {
            "pictures": {name: self.totals[name] for name in self.splits},
            "pictures_by_class": {
                name: sum(self.pictures[split][label] for split in self.splits)
                for label, name in enumerate(self.classes, start=1)
            },
            "uncertain_share": self.share(IGNORED),
        }
