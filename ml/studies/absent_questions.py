"""Study 7's questions: pictures asked for their own words and for absent ones."""

import re
from collections.abc import Sequence

import numpy as np

from ml.foundation.tokenizer import MAX_LENGTH
from ml.grounding.prompting import compose_prompt
from ml.images.contact_sheet import spread
from ml.studies.asking import Question
from ml.studies.prompt_sets import all_classes, word_of
from ml.studies.records import GENERATED, Record
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import drawn_pictures, judged_pictures
from ml.words.left_out import NOTHING
from ml.words.phrases import phrase

ABSENT = (0, 1, 2, 3, 4, 5)
"""Absent words asked along; with none, what the present ones get is the measure."""


def asked_pictures(run: StudyRun, source: str) -> list[Record]:
    """`Size.absent_pictures` of the judged or the drawn set, evenly chosen."""
    own = judged_pictures(run) if source == GENERATED else drawn_pictures(run)
    own = [r for r in own if r.is_drawn or r.whole]
    return [own[i].at(0) for i in spread(len(own), run.size.absent_pictures)]


def absent_classes(record: Record, classes: Sequence[str], count: int) -> list[str]:
    """So many classes that the picture does not show, drawn from the picture's seed.

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
    """The picture asked for its own words and the absent classes, shuffled by the picture's seed.

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
        text if record.is_drawn else record.text,
        text,
        tuple(words),
        tuple(phrase(word) for word in words),
        record.seed,
    )


def class_of(word: str) -> str:
    """The class that plain prompts call by this word."""
    return next(name for name in all_classes().classes if word_of(name) == word)
