"""The user's own prompts: a text file with one a line, and which classes each line names.

A line is used as it is written. Words are found as everywhere (`ml.words.spans`): the longest
first, whatever the case; empty lines and lines that start with # are skipped. Not here: how lines
are mixed with prompts made from templates (stage `prompts`).
"""

import unicodedata
from dataclasses import dataclass

from ml.settings.profile import find_file
from ml.store.reading import read_text
from ml.words.english import plurals
from ml.words.phrases import phrase_start
from ml.words.spans import UNSEEN, Hit, find, fold, occurrences, whole_word
from ml.words.text_limit import TextLimit
from ml.words.vocabulary import Vocabulary

MOST_ENTITIES = 2
"""Of one picture: the five cells of Protocol I know one and two objects."""
MOST_WORDS = 40
"""CLIP reads 75 tokens; 40 words of English are 45 to 60 of them. For a model that is not here yet:
one that is counts its own (`ml.words.text_limit`)."""
SHOWN_ERRORS = 10


@dataclass(frozen=True)
class Text:
    line: int  # of the file, from 1
    text: str
    entities: tuple[str, ...]  # class names, one or two, distinct, in the order of the text
    words: tuple[str, ...]  # as the vocabulary spells them
    phrases: tuple[str, ...]  # as they stand in the text, with article and adjectives


def read_texts(path: str, vocabulary: Vocabulary, limit: TextLimit | None = None) -> list[Text]:
    """The prompts of a text file, in its order.

    limit: of the model that will read them, where it is known. Raises ValueError for a missing,
    unreadable or empty file, and for lines that cannot be used, with their numbers and what is
    wrong with each.
    """
    file = find_file(path)
    if not file.is_file():
        raise ValueError(
            f"prompts.texts: no file {path}; expected a text file with one prompt a line, or null"
        )
    found, wrong, known = [], [], Known(vocabulary)
    for number, line in enumerate(read_text(file).splitlines(), 1):
        text = " ".join(line.split())
        if not text or text.startswith("#"):
            continue
        try:
            found.append(known.parse(text, number))
            if limit is not None and (fault := limit.fault(text)):
                raise ValueError(fault)
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    if wrong:
        more = f"\n  ... and {len(wrong) - SHOWN_ERRORS} more" if len(wrong) > SHOWN_ERRORS else ""
        raise ValueError(
            f"{path}: {len(wrong)} of its lines cannot be used; correct them or take "
            "them out:\n  " + "\n  ".join(wrong[:SHOWN_ERRORS]) + more
        )
    if not found:
        raise ValueError(f"{path} holds no prompt; write one a line, or set prompts.texts to null")
    return found


def parse_text(text: str, vocabulary: Vocabulary, line: int = 0) -> Text:
    """What a prompt names. Raises ValueError for a text that the pipeline could not use."""
    return Known(vocabulary).parse(text, line)


class Known:
    """A vocabulary's words and their plurals, as texts are searched for them."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.classes = vocabulary.classes
        self.owner = vocabulary.owners()
        self.spelt = {fold(word): word for words in vocabulary.words.values() for word in words}
        self.plural = {
            form: word
            for key, word in self.spelt.items()
            for form in plurals(key)
            if form not in self.owner
        }
        self.keys = self.owner.keys() | self.plural.keys()

    def parse(self, text: str, line: int) -> Text:
        """As `parse_text`."""
        if (length := len(text.split())) > MOST_WORDS:
            raise ValueError(
                f"has {length} words, expected {MOST_WORDS} at most: the text encoder "
                "would not read its end"
            )
        if bad := next((c for c in text if unicodedata.category(c) in UNSEEN), None):
            raise ValueError(
                f"{text!r} has the invisible character U+{ord(bad):04X}; type the "
                "line again without it"
            )
        hits = self._own(text)
        entities = tuple(self.owner[hit.key] for hit in hits)
        words = tuple(self.spelt[hit.key] for hit in hits)
        if not entities:
            raise ValueError(
                f"{text!r} names no class; expected a word of one of {', '.join(self.classes)}"
            )
        if twice := next((name for name in entities if entities.count(name) > 1), None):
            raise ValueError(
                f"{text!r} names {twice!r} more than once; one mask covers all of a class"
            )
        if len(entities) > MOST_ENTITIES:
            raise ValueError(
                f"{text!r} names {len(entities)} classes ({', '.join(entities)}), "
                f"expected {MOST_ENTITIES} at most"
            )
        floors = (0, *(hit.end for hit in hits))
        spans = [
            (phrase_start(text, hit.start, floor), hit.end)
            for hit, floor in zip(hits, floors, strict=False)
        ]
        phrases = tuple(text[start:end] for start, end in spans)
        _refuse_lost(text, spans, phrases)
        return Text(line, text, entities, words, phrases)

    def _own(self, text: str) -> list[Hit]:
        """The words that stand for themselves. Raises ValueError for what looks like one.

        A plural cannot be found again as the word, which the heat maps of a word need; neither
        can a part of "dog-friendly" or "dog's". Left unnamed, a thing that the picture may show
        would be taught as background.
        """
        hits = find(text, self.keys)
        if plural := next((hit for hit in hits if hit.key in self.plural), None):
            raise ValueError(
                f"{text!r} names {text[plural.start : plural.end]!r}; write the "
                f"singular {self.plural[plural.key]!r}"
            )
        for hit in find(text, self.keys, glued=True):
            if not any(own.start <= hit.start and hit.end <= own.end for own in hits):
                raise ValueError(
                    f"{text!r}: {text[hit.start : hit.end]!r} stands there only as a "
                    f"part of {whole_word(text, hit)!r}; write it as a word of its "
                    "own, or say it otherwise"
                )
        return hits


def _refuse_lost(text: str, spans: list[tuple[int, int]], phrases: tuple[str, ...]) -> None:
    """The stages look a phrase up by its first occurrence; it must be this one."""
    for span, phrase, found in zip(spans, phrases, occurrences(text, phrases), strict=True):
        if found[:1] != [span]:
            raise ValueError(
                f"{text!r}: {phrase!r} stands there more than once; say one of them otherwise"
            )
