"""Study 7's answers: what every method finds for present and for absent words.

The presence score itself is in `ml.grounding.presence`.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ml.diffusion.loading import load_pipeline
from ml.grounding.features import Words
from ml.grounding.presence import MIN_PRESENCE, compete, gains
from ml.metrics.iou import binary_iou
from ml.studies.absent_questions import ABSENT, absent_classes, asked_pictures, class_of, question
from ml.studies.asking import (
    CONTRAST,
    OURS,
    PAPER,
    SPECS,
    UNSETTLED,
    Answer,
    Question,
    answer,
    contrast,
    contrast_masks,
    load_modules,
    look,
)
from ml.studies.prompt_sets import word_of
from ml.studies.records import Record
from ml.studies.specs import Spec, vocabulary_of
from ml.studies.study_run import StudyRun

PRESENT = "our module with the presence score"

METHODS = (OURS, PRESENT, UNSETTLED, PAPER, CONTRAST)

CANDIDATES = (
    "presence score: gain of naming the word, words competing",
    "gain of naming the word, whole picture (diffusion classifier)",
    "peak of the contrast",
    "mean of the contrast",
    "the module's own probability",
)
"""Scores that may tell whether a word is there."""

PART = 20  # pictures that a process makes at once


def mask_rows(
    record: Record, asked: Question, masks: np.ndarray, absent: int, common: dict
) -> list[dict]:
    """One row a word: whether it is there, the share of the picture that its mask takes and, for
    a word that is there, its IoU. masks: bool (n,H,W)."""
    true = dict(
        zip(record.entities, record.truth if record.is_drawn else record.masks, strict=True)
    )
    rows = []
    for word, mask in zip(asked.words, masks, strict=True):
        name = class_of(word)
        rows.append(
            common
            | {
                "kind": "mask",
                "absent": absent,
                "key": record.key,
                "entity": name,
                "there": name in true,
                "area": float(mask.mean()),
                "iou": binary_iou(mask, true[name]) if name in true else float("nan"),
            }
        )
    return rows


class AbsentAsker:
    """The models, and what they answer for a part of the pictures."""

    def __init__(self, run: StudyRun, threshold: float) -> None:
        self.run, self.threshold = run, threshold
        self.pipe = load_pipeline(run.diffusion)
        self.words = Words(self.pipe)
        self.modules = load_modules(run)
        self.classes = vocabulary_of(Spec()).classes
        self.known: dict[tuple[int, str], np.ndarray] = {}  # contrast by picture and prompt

    def rows(self, source: str, number: int) -> Iterator[dict]:
        records = asked_pictures(self.run, source)[number * PART : (number + 1) * PART]
        if not records:
            return
        # A word's gain does not depend on the list that it stands in, its score does.
        most = [[*r.entities, *absent_classes(r, self.classes, max(ABSENT))] for r in records]
        maps = gains(
            self.pipe,
            np.stack([r.image for r in records]),
            [[word_of(name) for name in own] for own in most],
        )
        for absent in ABSENT:
            asked = [question(r, absent_classes(r, self.classes, absent)) for r in records]
            yield from self._all_methods(source, records, asked, absent)
            drop = []
            for record, names, own in zip(records, most, maps, strict=True):
                count = len(record.entities) + absent
                alone = own[:count].mean((1, 2))
                scores = compete(own[:count])
                drop.append([n for n, s in zip(names, scores, strict=False) if s < MIN_PRESENCE])
                for name, score, whole in zip(names, scores, alone, strict=False):
                    yield _score(CANDIDATES[0], 0, source, record, name, absent, score)
                    yield _score(CANDIDATES[1], 0, source, record, name, absent, whole)
            yield from self._with_presence(source, records, asked, drop, absent)

    def _contrast(self, asked: Sequence[Question]) -> list[np.ndarray]:
        new = {(q.seed, q.text): q for q in asked if (q.seed, q.text) not in self.known}
        found = contrast(
            self.pipe, list(new.values()), self.run.params.grounding.evidence_timesteps
        )
        self.known |= zip(new, found, strict=True)
        return [self.known[q.seed, q.text] for q in asked]

    def _all_methods(self, source, records, asked, absent) -> Iterator[dict]:
        maps = self._contrast(asked)
        batch = look(self.pipe, self.words, asked, maps)
        for method, modules in self.modules.items():
            for seed, module in enumerate(modules):
                found = answer(module, batch, asked)
                yield from _masks_of(
                    method, seed, source, records, asked, [own.masks for own in found], absent
                )
                if method == OURS:
                    yield from _probabilities(seed, source, records, asked, found, absent)
        yield from _masks_of(
            CONTRAST, 0, source, records, asked, contrast_masks(maps, asked, self.threshold), absent
        )
        for record, own, q in zip(records, maps, asked, strict=True):
            for word, peak, mean in zip(
                q.words, own.mean(1).max((-1, -2)), own.mean((1, 2, 3)), strict=True
            ):
                for candidate, value in ((CANDIDATES[2], peak), (CANDIDATES[3], mean)):
                    yield _score(candidate, 0, source, record, class_of(word), absent, value)

    def _with_presence(self, source, records, asked, drop, absent) -> Iterator[dict]:
        """As `GroundingEngine.ground(..., min_presence)`: the kept words alone."""
        own = [
            question(r, absent_classes(r, self.classes, absent), d)
            if set(map(class_of, q.words)) - set(d)
            else None
            for r, q, d in zip(records, asked, drop, strict=True)
        ]
        left = [q for q in own if q is not None]
        batch = look(self.pipe, self.words, left, self._contrast(left)) if left else None
        for seed, module in enumerate(self.modules[OURS]):
            found = iter(answer(module, batch, left) if left else ())
            masks = [
                _among(q, k, next(found) if k is not None else None)
                for q, k in zip(asked, own, strict=True)
            ]
            yield from _masks_of(PRESENT, seed, source, records, asked, masks, absent)


def _among(asked: Question, kept: Question | None, found: Answer | None) -> np.ndarray:
    """Masks of the kept words among those of all, the others empty: bool (n,H,W)."""
    masks = np.zeros((len(asked.words), *asked.image.shape[:2]), bool)
    if kept is not None:
        for word, mask in zip(kept.words, found.masks, strict=True):
            masks[asked.words.index(word)] = mask
    return masks


def _masks_of(method, seed, source, records, asked, masks, absent) -> Iterator[dict]:
    common = {"method": method, "split": SPECS[OURS].vocabulary, "seed": seed, "source": source}
    for record, q, own in zip(records, asked, masks, strict=True):
        yield from mask_rows(record, q, own, absent, common)


def _probabilities(seed, source, records, asked, found, absent) -> Iterator[dict]:
    """The module's own confidence: its mean probability within its mask, 0 without one."""
    for record, q, own in zip(records, asked, found, strict=True):
        for word, mask, soft in zip(q.words, own.masks, own.probabilities, strict=True):
            yield _score(
                CANDIDATES[4],
                seed,
                source,
                record,
                class_of(word),
                absent,
                float(soft[mask].mean()) if mask.any() else 0.0,
            )


def _score(candidate, seed, source, record, name, absent, value) -> dict:
    return {
        "kind": "score",
        "method": candidate,
        "seed": seed,
        "source": source,
        "key": record.key,
        "entity": name,
        "there": name in record.entities,
        "absent": absent,
        "value": float(value),
    }
