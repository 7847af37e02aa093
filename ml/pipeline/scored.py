"""What `grounding_scores` keeps beside its scores: the module's masks, and how far its
probabilities are right. Folders that an earlier version made have neither.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ml.images.run_lengths import encode_rle
from ml.metrics.calibration import Reliability, no_reliability, reliability
from ml.store.files import atomic
from ml.store.shards import read_frame

MASKS = pa.schema([("key", pa.string()), ("entity", pa.string()), ("rle", pa.string())])
RELIABILITY = pa.schema(
    [
        ("words", pa.string()),  # seen or unseen
        ("bin", pa.int64()),  # of equal width, over 0..1
        ("pixels", pa.int64()),
        ("total", pa.float64()),  # sum of their probabilities
        ("in_mask", pa.int64()),  # of them in the judge's mask
    ]
)
WORDS = ("seen", "unseen")


class Scored:
    """Gathers both while the pictures are scored, and writes them."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []
        self.sums = dict.fromkeys(WORDS, no_reliability())

    def add(
        self,
        key: str,
        entity: str,
        seen: bool,
        mask: np.ndarray,
        soft: np.ndarray,
        true: np.ndarray,
    ) -> None:
        """mask, true: bool (H,W), the module's and the judge's; soft: the module's probabilities
        float32 (H,W)."""
        self.rows.append({"key": key, "entity": entity, "rle": encode_rle(mask)})
        words = WORDS[not seen]
        self.sums[words] = self.sums[words] + reliability(np.clip(soft, 0, 1), true)

    @property
    def errors(self) -> dict[str, float]:
        """Expected calibration error 0..1 of the words that there are, by WORDS and over all."""
        found = {words: own.error for words, own in self.sums.items() if own.count.any()}
        return found | {"all": sum(self.sums.values(), no_reliability()).error}

    def write(self, folder: Path) -> None:
        """masks.parquet and reliability.parquet."""
        rows = [
            {"words": words, "bin": place, "pixels": count, "total": total, "in_mask": yes}
            for words, own in self.sums.items()
            for place, (count, total, yes) in enumerate(
                zip(own.count, own.total, own.yes, strict=True)
            )
        ]
        for name, frame, schema in (
            ("masks", pd.DataFrame(self.rows), MASKS),
            ("reliability", pd.DataFrame(rows), RELIABILITY),
        ):
            with atomic(folder / f"{name}.parquet") as temporary:
                frame.to_parquet(temporary, schema=schema, index=False)


def read_reliability(folder: Path) -> Mapping[str, Reliability]:
    """By WORDS, those that there are; {} for a folder without it."""
    if not (folder / "reliability.parquet").is_file():
        return {}
    rows = read_frame(folder / "reliability.parquet").sort_values("bin", kind="stable")
    return {
        str(words): Reliability(
            own.pixels.to_numpy(np.int64), own.total.to_numpy(float), own.in_mask.to_numpy(np.int64)
        )
        for words, own in rows.groupby("words")
        if own.pixels.any()
    }


def read_masks(folder: Path, keys: Sequence[str]) -> Mapping[tuple[str, str], str] | None:
    """Run lengths of the module's masks of these pictures by (key, entity); None for a folder
    without them."""
    if not (folder / "masks.parquet").is_file():
        return None
    rows = read_frame(folder / "masks.parquet", filters=[("key", "in", set(keys))])
    return dict(zip(zip(rows.key, rows.entity, strict=True), rows.rle, strict=True))
