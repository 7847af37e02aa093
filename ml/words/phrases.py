"""The phrase of a word: the word with its article, composed or found in a text.

Two finders, for two uses. `phrase_of` takes the article alone, so that the words of any prompt have
phrases that differ; `phrase_start` takes adjectives too, for the user's own lines, whose
pictures are trained on: "a red car" is left out as a whole.
"""

import re
from collections.abc import Sequence

from ml.words.english import with_article
from ml.words.spans import own_spans

_ARTICLE = re.compile(r"(?<!\w)(?:an?|the|one|some|two|several)\s+$", re.IGNORECASE)
DETERMINERS = {"a", "an", "the", "one", "this", "that"}
ARTICLES = DETERMINERS | {"some", "two", "several"}
STOPS = frozenset(
    """
    and or with of in on at by near beside behind under over above below to from for into onto
    inside outside between next is are as while without through around against along across
    beneath towards
""".split()
)
"""Words that end the adjectives before a noun, when these are read backwards."""
MOST_ADJECTIVES = 4


def phrase(word: str, attribute: str | None = None) -> str:
    """The phrase of a word with its article: "an aeroplane", "a red car" with an attribute."""
    return with_article(f"{attribute} {word}" if attribute else word)


def query_text(word: str) -> str:
    """ "a photograph of a dog": the text that asks for one word on its own."""
    return f"a photograph of {phrase(word)}"


def phrase_of(prompt: str, word: str, words: Sequence[str] = ()) -> str:
    """The word with the article before it, as it stands in the prompt ("a dining table").

    words: all that the prompt is asked for (`ml.words.spans.occurrences`). Raises ValueError when
    the word is not in the prompt on its own.
    """
    start, end = own_spans(prompt, word, words)[0]
    article = _ARTICLE.search(prompt[:start])
    return prompt[article.start() if article else start : end]


def without_article(phrase: str) -> str:
    """What a phrase names, its adjectives too: "red car" of "the red car"."""
    first, _, rest = phrase.partition(" ")
    return rest.lstrip() if first.casefold() in ARTICLES and rest.strip() else phrase


def phrase_start(text: str, start: int, floor: int) -> int:
    """Where the phrase of the word at `start` begins in a user's text: at its article, or at its
    adjectives.

    Never before `floor`, the end of the word before.
    """
    clause = re.findall(r"[\w'’ -]*$", text[floor:start])[0]
    begin = start - len(clause)
    before = list(re.finditer(r"[\w'’-]+", clause))
    first = start
    for count, word in enumerate(reversed(before)):
        if word[0].casefold() in STOPS:
            return first
        first = begin + word.start()
        if word[0].casefold() in DETERMINERS:
            return first
        if count == MOST_ADJECTIVES:
            return start  # a sentence, no run of adjectives
    return first
