"""Study 7's raw tables: pictures asked for words that they do not show, by every method.

Here: which words are asked for, the masks and scores. Not here: the figures (`absent_words`), the
presence score itself (`ml.grounding.presence`).
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ml.diffusion.loading import load_pipeline
from ml.diffusion.tokens import NOTHING
from ml.foundation.tokenizer import MAX_LENGTH
from ml.grounding.features import Words
from ml.grounding.presence import MIN_PRESENCE, TIMESTEPS, compete, gains
from ml.grounding.prompting import compose_prompt
from ml.images.contact_sheet import spread
from ml.metrics.iou import binary_iou
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
    contrast_threshold,
    load_modules,
    look,
    modules_recipe,
)
from ml.studies.design import everything, word_of
from ml.studies.sets import GENERATED, NOISED, Record
from ml.studies.trainings import Spec, judged_pictures, real_pictures, train_all, vocabulary_of
from ml.studies.workspace import Lab
from ml.words.phrases import phrase

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

ABSENT = (0, 1, 2, 3, 4, 5)
"""Absent words asked along; with none, what the present ones get is the measure."""
MASK_SHARE = 0.005
"""Of the picture: a smaller mask counts as none. The least area of a training mask."""
COLUMNS = (
    "kind",
    "method",
    "split",
    "seed",
    "source",
    "absent",
    "key",
    "entity",
    "there",
    "area",
    "iou",
    "value",
)
PART = 20  # pictures that a process makes at once


def make_tables(lab: Lab) -> None:
    """Trains what is not trained and asks every picture, in parts, `lab.workers` at once."""
    train_all(lab, list(SPECS.values()))
    threshold = contrast_threshold(lab)
    lab.run(
        "absent words", [(_part, lab, source, number, threshold) for source, number in _parts(lab)]
    )


def tables(lab: Lab) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `make_tables` left: rows of masks and rows of scores."""
    rows = pd.concat([_raw(lab, *part) for part in _parts(lab)], ignore_index=True)
    return tuple(rows[rows.kind == kind].reset_index(drop=True) for kind in ("mask", "score"))


def asked_pictures(lab: Lab, source: str) -> list[Record]:
    """`Size.absent_pictures` of the judged or the drawn set, evenly chosen."""
    own = judged_pictures(lab) if source == GENERATED else real_pictures(lab)
    own = [r for r in own if r.real or r.whole]
    return [own[i].at(0) for i in spread(len(own), lab.size.absent_pictures)]


def absent_classes(record: Record, classes: Sequence[str], count: int) -> list[str]:
    """So many classes that the picture does not show, by chance but the same at every call.

    At most two of all its classes have a word of two parts: `asked_text` has no room for more.
    """
    rng = np.random.default_rng([record.seed, 3])
    parts = sum(word_of(name).count(" ") for name in record.entities)
    chosen: list[str] = []
    for name in rng.permutation([name for name in classes if name not in record.entities]):
        if parts + word_of(name).count(" ") <= 2:
            chosen.append(str(name))
            parts += word_of(name).count(" ")
    return chosen[:count]


def asked_text(words: Sequence[str]) -> str:
    """The composed prompt, without its opening where the micro model would not read its end."""
    text = compose_prompt(words)
    tokens = 2 + len(re.findall(r"\w+|,", text))  # every word of the drawn world is one
    return text if tokens <= MAX_LENGTH else text.removeprefix(f"{NOTHING} ")


def question(record: Record, absent: Sequence[str], drop: Sequence[str] = ()) -> Question:
    """The picture asked for its own words and the absent classes, in an order by chance.

    drop: classes that are not asked for after all. Features of a generated picture come from its
    own prompt, those of a drawn one from the composed prompt, as `ground` does (`asked_text`).
    """
    names = [*record.entities, *absent]
    order = np.random.default_rng([record.seed, 4, len(absent)]).permutation(len(names))
    words = [word_of(names[i]) for i in order if names[i] not in drop]
    text = asked_text(words)
    return Question(
        record.image,
        record.latent,
        record.timestep,
        text if record.real else record.text,
        text,
        tuple(words),
        tuple(phrase(word) for word in words),
        record.seed,
    )


def mask_rows(
    record: Record, asked: Question, masks: np.ndarray, absent: int, said: dict
) -> list[dict]:
    """One row a word: whether it is there, the share of the picture that its mask takes and, for
    a word that is there, its IoU. masks: bool (n,H,W)."""
    true = dict(zip(record.entities, record.truth if record.real else record.masks, strict=True))
    rows = []
    for word, mask in zip(asked.words, masks, strict=True):
        name = _class_of(word)
        rows.append(
            said
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


def _class_of(word: str) -> str:
    return next(name for name in everything().classes if word_of(name) == word)


def _parts(lab: Lab) -> list[tuple[str, int]]:
    count = -(-lab.size.absent_pictures // PART)
    return [(source, number) for source in (GENERATED, NOISED) for number in range(count)]


def _recipe(lab: Lab, source: str, number: int) -> str:
    return lab.recipe(
        study="absent_words",
        source=source,
        number=number,
        counts=lab.counts("absent_pictures"),
        modules=modules_recipe(lab),
        presence=[MIN_PRESENCE, *TIMESTEPS],
        share=MASK_SHARE,
        absent=ABSENT,
        longest=MAX_LENGTH,
    )


def _raw(lab: Lab, source: str, number: int, threshold: float | None = None) -> pd.DataFrame:
    def ask() -> pd.DataFrame:
        if threshold is None:
            raise ValueError("the study of absent words was not made: run `python -m ml.studies`")
        return pd.DataFrame(_Asking(lab, threshold).rows(source, number), columns=COLUMNS)

    return lab.table(f"absent_words-{source}-{number:02d}", _recipe(lab, source, number), ask)


def _part(lab: Lab, source: str, number: int, threshold: float) -> str:
    _raw(lab, source, number, threshold)
    return f"{source} {number}"


class _Asking:
    """The models, and what they answer for a part of the pictures."""

    def __init__(self, lab: Lab, threshold: float) -> None:
        self.lab, self.threshold = lab, threshold
        self.pipe = load_pipeline(lab.diffusion)
        self.words = Words(self.pipe)
        self.modules = load_modules(lab)
        self.classes = vocabulary_of(Spec()).classes
        self.known: dict[tuple[int, str], np.ndarray] = {}  # contrast by picture and prompt

    def rows(self, source: str, number: int) -> Iterator[dict]:
        records = asked_pictures(self.lab, source)[number * PART : (number + 1) * PART]
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
            self.pipe, list(new.values()), self.lab.params.grounding.evidence_timesteps
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
                    yield _score(candidate, 0, source, record, _class_of(word), absent, value)

    def _with_presence(self, source, records, asked, drop, absent) -> Iterator[dict]:
        """As `GroundedDiffusionPipeline.ground(..., min_presence)`: the kept words alone."""
        own = [
            question(r, absent_classes(r, self.classes, absent), d)
            if set(map(_class_of, q.words)) - set(d)
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
    said = {"method": method, "split": SPECS[OURS].vocabulary, "seed": seed, "source": source}
    for record, q, own in zip(records, asked, masks, strict=True):
        yield from mask_rows(record, q, own, absent, said)


def _probabilities(seed, source, records, asked, found, absent) -> Iterator[dict]:
    """The module's own confidence: its mean probability within its mask, 0 without one."""
    for record, q, own in zip(records, asked, found, strict=True):
        for word, mask, soft in zip(q.words, own.masks, own.probabilities, strict=True):
            yield _score(
                CANDIDATES[4],
                seed,
                source,
                record,
                _class_of(word),
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
