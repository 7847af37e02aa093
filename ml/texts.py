"""The user's own prompts: a text file with one a line, and which classes each line names.

A line is used as it is written. Words are found at word boundaries, the longest first, whatever
the case; empty lines and lines that start with # are skipped. Not here: how lines are mixed with
prompts made from templates (stage `prompts`).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ml.params import find_file
from ml.vocabulary import Vocabulary

MOST_ENTITIES = 2
"""Of one picture: the five cells of Protocol I know one and two objects."""
MOST_WORDS = 40
"""CLIP reads 75 tokens; 40 words of English are 45 to 60 of them. What stands past the last one
that it reads is not drawn, and has no place in the text that evidence could come from."""
SHOWN_ERRORS = 10

ARTICLES = {"a", "an", "the", "one", "this", "that"}
STOPS = {"and", "or", "with", "of", "in", "on", "at", "by", "near", "beside", "behind", "under",
         "over", "above", "below", "to", "from", "for", "into", "onto", "inside", "outside",
         "between", "next", "is", "are", "as", "while", "without", "through", "around", "against",
         "along", "across", "beneath", "towards"}
"""What ends the run of adjectives before a word, read backwards."""
MOST_ADJECTIVES = 4


@dataclass(frozen=True)
class Text:
    line: int  # of the file, from 1
    text: str
    entities: tuple[str, ...]  # class names, one or two, distinct, in the order of the text
    words: tuple[str, ...]  # as the vocabulary spells them
    phrases: tuple[str, ...]  # as they stand in the text, with article and adjectives


def read_texts(path: str, vocabulary: Vocabulary) -> list[Text]:
    """The prompts of a text file, in its order.

    Raises ValueError for a missing, unreadable or empty file, and for lines that cannot be used,
    with their numbers and what is wrong with each.
    """
    file = find_file(path)
    if not file.is_file():
        raise ValueError(f"prompts.texts: no file {path}; expected a text file with one prompt a "
                         "line, or null")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    found, wrong = [], []
    for number, line in enumerate(lines, 1):
        text = " ".join(line.split())
        if not text or text.startswith("#"):
            continue
        try:
            found.append(parse_text(text, vocabulary, number))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        more = f"\n  ... and {len(wrong) - SHOWN_ERRORS} more" if len(wrong) > SHOWN_ERRORS else ""
        raise ValueError(f"{path}: {len(wrong)} of its lines cannot be used; correct them or take "
                         "them out:\n  " + "\n  ".join(wrong[:SHOWN_ERRORS]) + more)
    if not found:
        raise ValueError(f"{path} holds no prompt; write one a line, or set prompts.texts to null")
    return found


def parse_text(text: str, vocabulary: Vocabulary, line: int = 0) -> Text:
    """What a prompt names. Raises ValueError for a text that the pipeline could not use."""
    if (length := len(text.split())) > MOST_WORDS:
        raise ValueError(f"has {length} words, expected {MOST_WORDS} at most: the text encoder "
                         "would not read its end")
    owner = {word.casefold(): (name, word) for name, words in vocabulary.words.items()
             for word in words}
    hits = list(_pattern(owner).finditer(text))
    _refuse_plurals(text, owner, hits)
    named = [owner[hit[0].casefold()] for hit in hits]
    entities = tuple(name for name, _ in named)
    if not entities:
        raise ValueError(f"{text!r} names no class; expected a word of one of "
                         f"{', '.join(vocabulary.classes)}")
    if twice := next((name for name in entities if entities.count(name) > 1), None):
        raise ValueError(f"{text!r} names {twice!r} more than once; one mask covers all of a class")
    if len(entities) > MOST_ENTITIES:
        raise ValueError(f"{text!r} names {len(entities)} classes ({', '.join(entities)}), "
                         f"expected {MOST_ENTITIES} at most")
    spans, floor = [], 0
    for hit in hits:
        spans.append((_phrase_start(text, hit.start(), floor), hit.end()))
        floor = hit.end()
    for (start, end), (name, word) in zip(spans, named, strict=True):
        _refuse_hidden(text, start, end, name, word)
    return Text(line, text, entities, tuple(word for _, word in named),
                tuple(text[start:end] for start, end in spans))


def _pattern(words: Sequence[str], ending: str = "") -> re.Pattern:
    longest = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest))}){ending}(?!\w)",
                      re.IGNORECASE)


def _refuse_plurals(text: str, owner: dict, hits: list[re.Match]) -> None:
    """A plural cannot be found again as the word, which the heat maps of a word need; left
    unnamed, it would be taught as background."""
    for plural in _pattern(owner, "(?:e?s)").finditer(text):
        inside = any(hit.start() <= plural.start() and plural.end() <= hit.end() for hit in hits)
        if not inside:
            word = next(w for w in sorted(owner, key=len, reverse=True)
                        if plural[0].casefold() in (f"{w}s", f"{w}es"))
            raise ValueError(f"{text!r} names {plural[0]!r}; write the singular {word!r}")


def _phrase_start(text: str, start: int, floor: int) -> int:
    """Where the phrase of the word at `start` begins: at its article, or at its adjectives.

    Never before `floor`, the end of the word before.
    """
    clause = re.search(r"[\w'’ -]*$", text[floor:start])
    before = list(re.finditer(r"[\w'’-]+", text[floor:start][clause.start():]))
    first = start
    for count, word in enumerate(reversed(before)):
        if word[0].casefold() in STOPS:
            return first
        first = floor + clause.start() + word.start()
        if word[0].casefold() in ARTICLES:
            return first
        if count == MOST_ADJECTIVES:
            return start  # a sentence, no run of adjectives
    return first


def _refuse_hidden(text: str, start: int, end: int, name: str, word: str) -> None:
    """The stages look a phrase and a word up by their first occurrence; it must be this one."""
    for wanted in (text[start:end], word):
        hit = re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", text, re.IGNORECASE)
        if not start <= hit.start() < end:
            raise ValueError(f"{text!r}: {wanted!r} of class {name!r} stands inside other words "
                             "before it stands for itself; put it first, or say it otherwise")
