"""What the models say of one picture, and the words that are asked for: plain arrays, no page.

Not here: how it is asked (`drawing`, `finding`), and how it is shown (`showing`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ml.words.spans import find
from ml.words.vocabulary import Vocabulary

MOST_WORDS = 24
"""Of one question: each takes a pass of the U-Net, and a row of the page."""
Told = Callable[[float, str], None]
"""Is told how far a question is, 0..1, and what is being done."""


@dataclass(frozen=True)
class Word:
    """One word in one picture."""

    word: str
    mask: np.ndarray  # bool (H,W)
    probability: np.ndarray  # float32 (H,W) in 0..1
    presence: float  # >= 0, `ml.grounding.presence`
    attention: np.ndarray | None = None  # float32 (H,W) in 0..1: DAAM's map, scaled
    attention_mask: np.ndarray | None = None  # bool (H,W): above DAAM's threshold

    @property
    def share(self) -> float:
        """Of the picture that the mask covers, 0..1."""
        return float(self.mask.mean())


@dataclass(frozen=True)
class Answer:
    """A picture uint8 (H,W,3) with its words. name: what it is, in a few words."""

    picture: np.ndarray
    name: str
    words: list[Word]


def words_of(text: str) -> list[str]:
    """The words of a line, separated by commas, semicolons or line ends.

    Raises ValueError for none, or more than MOST_WORDS.
    """
    words = [" ".join(part.split()) for part in re.split(r"[,;\n]", text or "")]
    words = [word for word in words if word]
    if not words:
        raise ValueError("no word to look for: type one or more, separated by commas: dog, cat")
    if len(words) > MOST_WORDS:
        raise ValueError(f"{len(words)} words: expected {MOST_WORDS} at most, ask for fewer")
    return words


def words_in(prompt: str, vocabulary: Vocabulary) -> list[str]:
    """The vocabulary's words that stand in a prompt, as they are written there, in its order, a
    class once. Raises ValueError for none."""
    owners, found = vocabulary.owners(), {}
    for hit in find(prompt, owners):
        found.setdefault(owners[hit.key], prompt[hit.start : hit.end])
    if not found:
        raise ValueError(
            f"the prompt names no word of the vocabulary {vocabulary.name!r}: type the words to "
            "mask as they stand in it, separated by commas"
        )
    return list(found.values())
