"""The words of `--classes`: read, and checked one by one."""

import re
import unicodedata
from itertools import chain

from ml.words import coco
from ml.words.english import SINGULAR, plurals, singular_of, with_article
from ml.words.spans import check_name, fold
from ml.words.spellings import canonical
from ml.words.vocabulary import BACKGROUND, MAX_CLASSES, synonyms

LETTERS = r"(?:[^\W_][\u0300-\u036f]*)+"  # with their marks: "İ" in small is two characters
WORD = re.compile(rf"{LETTERS}(?:(?:['’]?[ -]|['’]){LETTERS})*")  # "jack-o'-lantern", "dogs' bowl"

PLURALS = {
    form: one
    for one in (*coco.CLASSES, *chain(*synonyms().values()))
    for form in plurals(one) - SINGULAR
}
"""Plural -> singular of the words that detectors know. Only of those: "wine glasses" is a plural,
"safety glasses" is not."""


def parse_classes(text: str) -> list[str]:
    """The words of a comma-separated list, in small letters.

    Raises ValueError for none, more than a vocabulary holds, an empty one, a repeated one, a
    plural, characters other than letters and digits, or one that is part of another.
    """
    text = unicodedata.normalize("NFC", text)
    words = [" ".join(word.lower().split()) for word in text.split(",")]
    if not any(words):
        raise ValueError(
            '--classes: expected words separated by commas, such as "forklift, hard '
            f'hat", got {text!r}'
        )
    if len(words) > MAX_CLASSES:
        raise ValueError(
            f"--classes: {len(words)} words, expected {MAX_CLASSES} classes at most, "
            "the seen ones included: label maps are 8-bit. Name fewer"
        )
    for word in words:
        if not word:
            raise ValueError(f"--classes {text!r}: nothing stands between two commas; take one out")
        if not WORD.fullmatch(word) or fold(word) == BACKGROUND:
            raise ValueError(
                f"--classes: {word!r} cannot be a class; expected letters and digits "
                "with single blanks or hyphens between words, and not `background`"
            )
        try:
            check_name(word)
        except ValueError as error:
            raise ValueError(f"--classes: {error}") from error
        if one := PLURALS.get(word) or singular_of(word):
            raise ValueError(
                f"--classes: {word!r} is a plural, and prompts would say "
                f"{with_article(word)!r}; use the singular, such as {one!r}. If it is "
                "none, use any other word and mend it in the vocabulary file"
            )
    named: dict[str, str] = {}
    for word in words:
        if other := named.get(canonical(word)):
            raise ValueError(f"--classes: {other!r} and {word!r} are one class; name it once")
        named[canonical(word)] = word
    for word in words:
        longer = next((other for other in words if other != word and is_part_of(word, other)), None)
        if longer:
            raise ValueError(
                f"--classes: {word!r} is part of {longer!r}, so that the two cannot "
                "be told apart in a prompt; use another word for one of them"
            )
    return words


def is_part_of(word: str, other: str) -> bool:
    """Whether a word stands in another at word boundaries: "hat" in "hard hat", not in "hatch"."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", other) is not None
