"""Browse: what the synthetic set and the triplets hold, what was rejected and why, marks on masks.

A set's facts are kept in memory for all who look, by the digest of its manifest; pictures are read
from their shards when they are shown. Not here: marks on disk (`ml.pipeline.marks`).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ml.errors import ManifestError
from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.pipeline.audited import verdicts_among
from ml.pipeline.finished import manifest_of, refuse_other_words
from ml.pipeline.marks import Mark, add_marks, picture_folders, picture_sha256, read_marks
from ml.pipeline.workspace import Workspace
from ml.store.shards import read_frame
from ml.store.sidecars import shard_files
from ml.words.vocabulary import Vocabulary

TITLES = {"synthetic_dataset": "Synthetic set", "triplets": "Triplets (training and judging)"}
"""Stage whose masks are shown -> its title."""
PAGE = 12
ACCEPTED, REJECTED, EVERY = "accepted", "all that was rejected", "everything"
"""Choices beside the single reasons."""
_COLUMNS = {
    "synthetic_dataset": ["key", "text", "entities", "words", "accepted", "reason"],
    "triplets": ["key", "text", "entity", "word", "accepted", "reason"],
}


@dataclass(frozen=True)
class Item:
    """One word of one picture. mask: None where there is none to judge. verdict: of the last mark
    on it, "" for none."""

    stage: str
    key: str
    text: str
    entity: str
    word: str
    reason: str  # "" when accepted
    picture: np.ndarray  # uint8 (H,W,3)
    mask: np.ndarray | None  # bool (H,W)
    sha256: str
    verdict: str


@dataclass(frozen=True)
class Page:
    """Page number `page` (from 1) of `pages`. total: items in all; marked: marks of the stage."""

    items: list[Item]
    page: int
    pages: int
    total: int
    marked: int


class Sets:
    """The two sets of one profile."""

    def __init__(self, workspace: Workspace, vocabulary: Vocabulary) -> None:
        self.workspace, self.vocabulary = workspace, vocabulary
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[str, pd.DataFrame]] = {}

    def stages(self) -> list[str]:
        """Those that are finished."""
        return [stage for stage in TITLES if manifest_of(self.workspace, stage) is not None]

    def reasons(self, stage: str) -> dict[str, str]:
        """Choice -> its title with a count: everything, accepted, rejected, and each reason."""
        rows = self.rows(stage)
        rejected = rows[~rows.accepted]
        counts = {
            EVERY: len(rows),
            ACCEPTED: len(rows) - len(rejected),
            REJECTED: len(rejected),
            **rejected.reason.value_counts().sort_index().to_dict(),
        }
        return {choice: f"{choice.replace('_', ' ')} ({n:,})" for choice, n in counts.items()}

    def classes(self, stage: str) -> list[str]:
        return sorted(self.rows(stage).entity.unique())

    def rows(self, stage: str) -> pd.DataFrame:
        """A row a word and picture: key, text, entity, word, accepted, reason, `shard` (of the
        labels), `place` (of the word in its row). Raises ManifestError for an unfinished stage,
        ValueError for label maps in another vocabulary's numbers."""
        if stage not in TITLES:
            raise ValueError(f"expected one of {list(TITLES)}, got {stage!r:.80}")
        with self._lock:
            manifest = manifest_of(self.workspace, stage)
            if manifest is None:
                raise ManifestError(
                    f"the profile {self.workspace.profile!r} has no finished {stage}: make it "
                    f"with `make run PROFILE={self.workspace.profile}`, then look again"
                )
            if stage == "synthetic_dataset":
                refuse_other_words(manifest, self.vocabulary)
            if stage not in self._kept or self._kept[stage][0] != manifest.digest:
                self._kept[stage] = manifest.digest, self._read(stage)
            return self._kept[stage][1]

    def page(self, stage: str, reason: str, entity: str, page: int) -> Page:
        """One page of the rows of a reason (or choice) and a class ("" for all). A page beyond the
        last is the last."""
        rows = self.rows(stage)
        if reason != EVERY:
            chosen = {ACCEPTED: rows.accepted, REJECTED: ~rows.accepted}
            rows = rows[chosen.get(reason, rows.reason == reason)]
        if entity:
            rows = rows[rows.entity == entity]
        pages = max(1, -(-len(rows) // PAGE))
        page = min(max(1, int(page)), pages)
        marks = [mark for mark in read_marks(self.workspace) if mark.stage == stage]
        items = self._items(stage, rows.iloc[(page - 1) * PAGE : page * PAGE], marks)
        return Page(items, page, pages, len(rows), len(marks))

    def mark(self, stage: str, key: str, word: str, sha256: str, verdict: str) -> int:
        """Writes what somebody says of a mask; returns how many marks the stage has then.

        sha256: of the picture that was shown. Under the same key a set that was made again has
        another one, which nobody judged. Raises ValueError for it, for a mask that the set does
        not hold, and for an unknown verdict.
        """
        rows = self.rows(stage)
        own = rows[(rows.key == key) & (rows.word == word)]
        items = self._items(stage, own, [])
        if not items or items[0].mask is None:
            raise ValueError(
                f"the set has no mask of {word!r:.80} in the picture {key!r:.80}: it was made "
                "again since; load the page again"
            )
        if items[0].sha256 != sha256:
            raise ValueError(
                f"expected a mark on the picture {key!r:.80} that the set has now (sha256 "
                f"{items[0].sha256:.12}), got one on another ({sha256!r:.14}): it was made again "
                "since; load the page again"
            )
        add_marks(self.workspace, [Mark(stage, sha256, key, word, verdict)])
        return sum(mark.stage == stage for mark in read_marks(self.workspace))

    def _read(self, stage: str) -> pd.DataFrame:
        frames = []
        for place, path in enumerate(shard_files(self.workspace.folder(stage))):
            frame = read_frame(path, _COLUMNS[stage])
            if stage == "synthetic_dataset":
                frame["place"] = [range(len(own)) for own in frame.entities]
                frame = frame.explode(["entities", "words", "place"]).rename(
                    columns={"entities": "entity", "words": "word"}
                )
            frames.append(frame.assign(shard=place))
        rows = pd.concat(frames, ignore_index=True)
        return rows.assign(accepted=rows.accepted.astype(bool))

    def _items(self, stage: str, rows: pd.DataFrame, marks: Sequence[Mark]) -> list[Item]:
        """marks: of the stage."""
        keys = sorted(set(rows.key))
        labels = self._labels(stage, rows, keys)
        pictures: dict[str, bytes] = {}
        for folder in picture_folders(self.workspace, stage):
            pictures |= _images(folder, [k for k in keys if k not in pictures], set(rows.shard))
        digests = {key: picture_sha256(data) for key, data in pictures.items()}
        verdicts = verdicts_among(digests, marks, rows)
        return [
            Item(
                stage,
                row.key,
                row.text,
                row.entity,
                row.word,
                row.reason,
                decode_png(pictures[row.key]),
                labels[row.key, row.entity],
                digests[row.key],
                verdicts[row.Index],
            )
            for row in rows.itertuples()
        ]

    def _labels(
        self, stage: str, rows: pd.DataFrame, keys: list[str]
    ) -> dict[tuple[str, str], np.ndarray | None]:
        """The mask of each row, None for an empty one, out of the shards that hold them."""
        files = shard_files(self.workspace.folder(stage))
        column = "label" if stage == "synthetic_dataset" else "rle"
        masks: dict[tuple[str, str], np.ndarray | None] = {}
        names = ["key", column] if column == "label" else ["key", "entity", column]
        for place in sorted(set(rows.shard)):
            stored = read_frame(files[place], names, [("key", "in", keys)])
            if column == "label":
                maps = {row.key: decode_png(row.label) for row in stored.itertuples()}
                for row in rows[rows.shard == place].itertuples():
                    mask = maps[row.key] == self.vocabulary.label(row.entity)
                    masks[row.key, row.entity] = mask if mask.any() else None
            else:
                for row in stored.itertuples():
                    masks[row.key, row.entity] = decode_rle(row.rle) if row.rle else None
        return masks


def _images(folder: Path, keys: list[str], near: set[int]) -> dict[str, bytes]:
    """The stored bytes of the pictures of some keys. near: shards in which they are likely."""
    files = shard_files(folder)
    found: dict[str, bytes] = {}
    for place in sorted(range(len(files)), key=lambda place: (place not in near, place)):
        if len(found) == len(keys):
            break
        frame = read_frame(files[place], ["key", "image"], [("key", "in", keys)])
        found |= dict(zip(frame.key, frame.image, strict=True))
    return found
