"""Marks: pictures that a person judged by eye, kept beside the stages' folders.

`data/<profile>/audit/marks.json` is the person's work. No stage writes or deletes it; a picture is
named by its bytes, so that a mark outlives the set it was made in, and says nothing about another
picture that took its key. Who heeds the marks: `triplets` rejects what was marked wrong, the report
counts precision, the promotion may ask for it. Not here: the sheet of pictures to tick
(`ml.pipeline.audit`), the buttons (the app).
"""

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.files import Damaged, sha256_json
from ml.store.kept import change_kept, read_kept
from ml.store.sidecars import OWN

VERDICTS = ("right", "wrong mask", "wrong object")
"""right: the object is in the picture, and the mask covers nearly all of it and nothing else."""
RIGHT = VERDICTS[0]
MARKED = "marked_wrong"
"""Reason of a triplet that a person marked wrong."""
FOLDER, FILE = "audit", "marks.json"
PICTURES = {"synthetic_dataset": "synthetic_dataset", "triplets": "images"}
"""Stage whose labels are marked -> the stage that holds its pictures."""
_FILE = {"marks": list}


def picture_folders(workspace: Workspace, stage: str) -> list[Path]:
    """The folders that hold the pictures of a stage's labels; a user's own are beside triplets."""
    own = [workspace.folder(stage) / OWN] if stage == "triplets" else []
    return [workspace.folder(PICTURES[stage]), *own]


def now() -> str:
    """The present time in UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Mark:
    """What a person said of the mask that a stage has for one word of one picture.

    stage: one of PICTURES. sha256: of the picture's stored PNG bytes (`picture_sha256`). key: of
    the picture. word: the word as the picture's row has it, or its class. verdict: one of VERDICTS.
    when: ISO 8601 with its offset from UTC.
    """

    stage: str
    sha256: str
    key: str
    word: str
    verdict: str
    when: str = field(default_factory=now)

    def __post_init__(self) -> None:
        """Raises ValueError, one sentence, for a field that is not what it must be."""
        for each in dataclasses.fields(self):
            if not isinstance(value := getattr(self, each.name), str) or not value:
                raise ValueError(f"{each.name}: expected a text, got {value!r:.80}")
        if self.stage not in PICTURES:
            raise ValueError(f"stage: expected one of {list(PICTURES)}, got {self.stage!r:.80}")
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict: expected one of {list(VERDICTS)}, got {self.verdict!r:.80}")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"sha256: expected 64 hex digits, got {self.sha256!r:.80}")
        try:
            dated = datetime.fromisoformat(self.when).tzinfo is not None
        except ValueError:
            dated = False
        if not dated:
            raise ValueError(
                "when: expected a time with its offset, such as 2026-11-27T17:00:00+00:00, got "
                f"{self.when!r:.80}"
            )


def picture_sha256(png: bytes) -> str:
    """What names a picture in a mark: hex sha256 of its stored bytes (the column `image`)."""
    return hashlib.sha256(png).hexdigest()


def read_marks(workspace: Workspace) -> list[Mark]:
    """All marks of a workspace, one a (stage, sha256, word), in the order in which they were made;
    [] before there is one. Raises ValueError for a file that is not what `add_marks` writes."""
    return _marks(workspace, read_kept(workspace.data, FOLDER, FILE, _FILE))


def add_marks(workspace: Workspace, marks: Iterable[Mark]) -> None:
    """Adds marks to those that are there; of one (stage, sha256, word) the last verdict stays.

    Any number of processes may add at the same time: each waits for the others. Raises ValueError
    as `read_marks` (and leaves the file as it is), WorkspaceBusy when the others do not end,
    PermissionError where nothing can be written.
    """
    added = list(marks)
    if not added:
        return

    def change(found: dict[str, Any] | None) -> dict[str, Any]:
        kept = _last([*_marks(workspace, found), *added])
        return {"marks": [dataclasses.asdict(mark) for mark in kept]}

    change_kept(workspace.data, FOLDER, FILE, _FILE, change)


def _marks(workspace: Workspace, found: dict[str, Any] | None) -> list[Mark]:
    names = [each.name for each in dataclasses.fields(Mark)]
    marks = []
    for place, entry in enumerate(found["marks"] if found else []):
        try:
            if not isinstance(entry, dict) or sorted(entry) != sorted(names):
                raise ValueError(f"expected an object with {', '.join(names)}, got {entry!r:.80}")
            marks.append(Mark(**entry))
        except ValueError as error:
            raise Damaged(
                f"{workspace.data / FOLDER / FILE}, mark {place + 1}: {error}. It was edited or "
                "damaged: correct that entry, or move the file away to begin anew"
            ) from error
    return _last(marks)


def _last(marks: Iterable[Mark]) -> list[Mark]:
    """The last mark of each (stage, sha256, word), in the order of those."""
    kept: dict[tuple[str, str, str], Mark] = {}
    for mark in marks:
        same = mark.stage, mark.sha256, mark.word
        kept.pop(same, None)
        kept[same] = mark
    return list(kept.values())


def heeded(stage: str, params: Params, workspace: Workspace) -> dict[str, str]:
    """What a stage's recipe holds of the marks: a digest of those that change what it writes.

    {} for a stage that heeds none, and where there is none that it heeds, so that what was made
    without marks stays valid.
    """
    asked = params.promotion.min_audited_precision is not None
    if stage not in ("triplets", "report") and not (stage == "promotion" and asked):
        return {}
    marks = read_marks(workspace)
    if stage == "triplets":
        marks = [m for m in marks if m.stage == stage and m.verdict != RIGHT]
    if stage == "promotion":
        marks = [m for m in marks if m.stage == "synthetic_dataset"]
    said = sorted([m.stage, m.sha256, m.key, m.word, m.verdict] for m in marks)
    return {f"marks_{stage}": sha256_json(said)} if said else {}
