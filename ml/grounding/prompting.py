"""Prompts of pictures that are asked for words: composed of them, or with some left out."""

import re
from collections.abc import Sequence

import numpy as np

from ml.diffusion.tokens import without_phrase
from ml.microworld.captions import phrase as with_article

ARTICLES = r"(?:an?|the|one|some|two|several)\s+"


def phrase_of(prompt: str, word: str) -> str:
    """The word with the article before it, as it stands in the prompt ("a dining table").

    Raises ValueError when the word is not in the prompt.
    """
    found = re.search(rf"(?<!\w)(?:{ARTICLES})?{re.escape(word)}(?!\w)", prompt, re.IGNORECASE)
    if found is None:
        raise ValueError(f"{word!r} is not in the prompt {prompt!r}: name entities by the words "
                         "that stand there, or leave the prompt out")
    return found[0]


def compose_prompt(words: Sequence[str]) -> str:
    """"a photograph of a dog, a cat and an aeroplane". Raises ValueError for no word."""
    if not len(words):
        raise ValueError("no word for a picture: name at least one entity")
    phrases = [with_article(word) for word in words]
    listed = " and ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)
    return f"a photograph of {listed}"


def keep_words(
    prompt: str, words: Sequence[str], phrases: Sequence[str], kept: np.ndarray, composed: bool
) -> tuple[str, list[str], list[str]]:
    """The prompt, words and phrases without the words that are not kept; kept: bool (n,).

    A composed prompt is composed again of the kept words; from another the other phrases are left
    out. Without a word that is kept a prompt means nothing and is returned as it is.
    """
    left = [[value for value, keep in zip(own, kept, strict=True) if keep]
            for own in (words, phrases)]
    if composed and left[0]:
        prompt = compose_prompt(left[0])
    elif left[0]:
        for phrase in dict.fromkeys(np.asarray(phrases)[~kept].tolist()):
            prompt = without_phrase(prompt, phrase)
    return prompt, *left
