"""What is asked of pictures: words, the prompts that name them, and the phrase of each word.

Every word and text that `ml.grounding.engine` is given passes through `ask`, whoever calls it.
"""

from collections.abc import Sequence, Sized
from typing import NamedTuple

import numpy as np

from ml.words.left_out import without_phrase
from ml.words.phrases import phrase, phrase_of
from ml.words.spans import check_name, check_word, own_spans


class Asked(NamedTuple):
    """One picture's prompt, the n words that it is asked for, and their n phrases."""

    prompt: str
    words: list[str]
    phrases: list[str]


def ask(
    entities: Sequence[Sequence[str]],
    prompts: Sequence[str] | None = None,
    phrases: Sequence[Sequence[str]] | None = None,
) -> list[Asked]:
    """What each picture is asked for, checked.

    Without prompts they are composed of the words; without phrases these are the words with their
    articles. Raises ValueError for lists of unequal length, what is no list of words, a word that
    is asked for twice, or a word or phrase that doesn't stand in its prompt for itself.
    """
    for what, given in (("words", entities), ("prompts", prompts), ("phrases", phrases)):
        refuse_set(what, given)
        if not hasattr(given, "__len__") and (given is not None or what == "words"):
            raise ValueError(f"expected the {what} of each picture in a list, got {given!r:.80}")
    words = [_listed(own, "words") for own in entities]
    if not all(words):
        raise ValueError(
            f"expected at least one word a picture, got {words}; leave out pictures "
            "in which nothing is looked for"
        )
    if prompts is None:
        for own in words:
            for word in own:
                check_name(word)
        prompts = [compose_prompt(own) for own in words]
    check_lengths(prompts=prompts, entities=words)
    if wrong := [prompt for prompt in prompts if not isinstance(prompt, str)]:
        raise ValueError(f"expected every prompt as text, got {wrong[0]!r}")
    if phrases is None:
        phrases = [
            [phrase_of(prompt, word, own) for word in own]
            for prompt, own in zip(prompts, words, strict=True)
        ]
    check_lengths(prompts=prompts, phrases=phrases)
    asked = [
        Asked(prompt, own, _listed(named, "phrases"))
        for prompt, own, named in zip(prompts, words, phrases, strict=True)
    ]
    for prompt, own, named in asked:
        if len(own) != len(named):
            raise ValueError(
                f"expected a phrase for each word of {prompt!r}, got {len(named)} for "
                f"{len(own)}: {named} for {own}"
            )
        for names in (own, named):
            for name in names:
                own_spans(prompt, name, names)
    return asked


def _listed(own: Sequence[str], what: str) -> list[str]:
    """A picture's words as a list, checked; a text alone would be taken for its letters."""
    refuse_set(what, own)
    if isinstance(own, str | bytes) or not hasattr(own, "__len__"):
        raise ValueError(
            f'expected a list of {what} for each picture, such as ["dog", "car"], got {own!r}'
        )
    return [check_word(word) for word in own]


def refuse_set(what: str, given: object) -> None:
    """Raises ValueError for a set: its order, and with it the composed prompt and the masks, is
    another in every process."""
    if isinstance(given, set | frozenset):
        raise ValueError(
            f"{what}: expected a list, whose order is kept, got a {type(given).__name__}; "
            f"sort it first: sorted({what})"
        )


def compose_prompt(words: Sequence[str]) -> str:
    """ "a photograph of a dog, a cat and an aeroplane". Raises ValueError for no word."""
    if not len(words):
        raise ValueError("no word for a picture: name at least one entity")
    phrases = [phrase(word) for word in words]
    listed = " and ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)
    return f"a photograph of {listed}"


def keep_words(asked: Asked, kept: np.ndarray, composed: bool) -> Asked:
    """What is asked for without the words that are not kept; kept: bool (n,).

    A composed prompt is composed again of the kept words; from another the other phrases are left
    out. At least one word is kept.
    """
    prompt, phrases = asked.prompt, list(asked.phrases)
    words = [word for word, keep in zip(asked.words, kept, strict=True) if keep]
    left = [phrase for phrase, keep in zip(phrases, kept, strict=True) if keep]
    if composed:
        prompt = compose_prompt(words)
    else:
        for phrase in [phrase for phrase in phrases if phrase not in left]:
            prompt = without_phrase(prompt, phrase, phrases)
            phrases.remove(phrase)
    return Asked(prompt, words, left)


def check_lengths(**lists: Sized) -> None:
    """Raises ValueError unless all have one entry a picture."""
    if len({len(values) for values in lists.values()}) > 1:
        got = ", ".join(f"{len(values)} {name}" for name, values in lists.items())
        raise ValueError(f"expected as many of each, one for every picture; got {got}")
