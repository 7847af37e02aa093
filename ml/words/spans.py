"""A word, and where it stands in a text: the one place that compares words and finds them.

Whoever looks a word up (the user's lines, prompts, attention, contrast, text queries) does it by
`occurrences`, so that one word means one place everywhere. Not here: articles and plurals
(`ml.words.english`), which words there are (`ml.words.vocabulary`), and tokens
(`ml.diffusion.tokens`).
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import NamedTuple

ALIKE = str.maketrans("’‘ʼ‐‑", "'''--")
"""Variants of apostrophes and hyphens that count as equal."""
GLUE = "-'"
"""Joins letters into one word: "dog" doesn't stand in "dog-friendly", "dog's" or "hot-dog"."""
SMALL = frozenset("a an the and of next to near".split())
"""What prompts are made of besides the words: none can be distinguished from the prompt's own."""
OPENING = re.compile(r"(?:an?|the) (?:photograph|picture|photo|image) of ")
"""How prompts begin. These words are not part of what is shown: "a photograph of a photograph"
names a "photograph" once."""
MOST_LETTERS = 200
"""Of a word or phrase."""
UNSEEN = ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp")
"""Unicode's categories of invisible characters: control and format characters, line ends."""


class Hit(NamedTuple):
    """A word within a text: text[start:end], and the key that it goes by."""

    start: int
    end: int
    key: str


def fold(word: str) -> str:
    """The form in which words are compared: without case, composed, single blanks."""
    return _folded(word)[0].strip()


def check_word(word: object) -> str:
    """Returns the word. Raises ValueError, saying what is wrong, when it cannot be a name."""
    if not isinstance(word, str):
        raise ValueError(
            f'expected a word, got {word!r}; quote what YAML takes for something else: "{word}"'
        )
    if bad := next((c for c in word if unicodedata.category(c) in UNSEEN), None):
        raise ValueError(
            f"{word!r} has the invisible character U+{ord(bad):04X}; type the word again without it"
        )
    if word != word.strip() or not any(c.isalnum() for c in word):
        raise ValueError(
            f"{word!r}: expected at least one letter or digit, and no blank before or after"
        )
    if len(word) > MOST_LETTERS:
        raise ValueError(
            f"{word[:40]!r}... has {len(word)} letters, expected {MOST_LETTERS} at "
            "most: no text encoder reads more"
        )
    return word


def check_name(named: object) -> str:
    """A word that names a kind of thing, as `check_word` and more: prompts put an article before
    it. Raises ValueError for one that brings its own, for small words alone, and for several in
    one."""
    word = check_word(named)
    parts = fold(word).split(" ")
    if SMALL.issuperset(parts):
        raise ValueError(
            f"{word!r} stands in prompts by itself, so that it can't name a thing; use another word"
        )
    if parts[0] in ("a", "an", "the"):
        raise ValueError(
            f'{word!r}: prompts bring the article, and would say "a {word}"; leave {parts[0]!r} out'
        )
    if re.search(r" and (an?|the) ", fold(word)):
        raise ValueError(f"{word!r} names two things; write each for itself")
    if parts[-1] in SMALL:
        raise ValueError(f"{word!r} ends in {parts[-1]!r}, as no name does; name one thing")
    if ", " in word or word.endswith(","):
        raise ValueError(f"{word!r} is several words in one; write each for itself")
    return word


def find(text: str, keys: Collection[str], glued: bool = False) -> list[Hit]:
    """Where folded words (`keys`) stand in a text, in its order; the longest first, none shared.

    They stand between word boundaries; with `glued` also as a part of what hyphens and
    apostrophes make one word.
    """
    folded, places = _folded(text)
    opening = OPENING.match(folded)
    inside = opening.end() if opening else 0
    longest = max(map(len, keys), default=0)
    # A letter may fold to several ("ß"), and no word begins or ends within one.
    edges = [i for i in range(1, len(folded)) if places[i] != places[i - 1]]
    ends = [j for j in (*edges, len(folded)) if _ends(folded, j, glued)]
    every = []
    for i in (i for i in (0, *edges) if _begins(folded, i, glued)):
        for j in ends[bisect_right(ends, max(i, inside)) :]:
            if j - i > longest:
                break
            if folded[i:j] in keys:
                every.append((i, j))
    taken, hits = [False] * len(folded), []
    for i, j in sorted(every, key=lambda span: (span[0] - span[1], span[0])):
        if not any(taken[i:j]):
            taken[i:j] = [True] * (j - i)
            hits.append(Hit(places[i][0], places[j - 1][1], folded[i:j]))
    return sorted(hits)


def occurrences(text: str, words: Sequence[str]) -> list[list[tuple[int, int]]]:
    """Where each word stands on its own in a text that names all of `words`: (start, end) pairs.

    The longest word is found first and no place counts twice, so that the "bear" of "a teddy bear
    and a bear" is the second. Empty for a word that isn't there. Raises ValueError for an empty
    word, or one that is asked for twice: one mask covers all that a word names.
    """
    rows: dict[str, int] = {}
    for row, word in enumerate(words):
        key = fold(check_word(word))
        if key in rows:
            raise ValueError(
                f"{words[rows[key]]!r} and {word!r} are one word, asked for twice in "
                f"{text!r}: one mask covers all that a word names, so name it once"
            )
        rows[key] = row
    found: list[list[tuple[int, int]]] = [[] for _ in words]
    for hit in find(text, rows):
        found[rows[hit.key]].append((hit.start, hit.end))
    return found


def named_in(text: str, words: Sequence[str]) -> list[bool]:
    """Whether each word stands in a text on its own, beside all the others; never raises."""
    there = {hit.key for hit in find(text, {fold(word) for word in words})}
    return [fold(word) in there for word in words]


def own_spans(text: str, word: str, words: Sequence[str] = ()) -> list[tuple[int, int]]:
    """All (start, end) of a word or phrase in a text that also names `words`, at least one.

    words: all that the text is asked for, with the word itself or without. Raises ValueError when
    it isn't there on its own, and as `occurrences`.
    """
    own = fold(check_word(word))
    keys = [fold(check_word(other)) for other in words]
    every, keys = ([*words], keys) if own in keys else ([*words, word], [*keys, own])
    if spans := occurrences(text, every)[keys.index(own)]:
        return spans
    part = next(
        (
            f"; it stands there only within {whole_word(text, hit)!r}"
            for hit in find(text, {own}, glued=True)
        ),
        "",
    )
    raise ValueError(
        f"{word!r} is not in the prompt {text!r}{part}; name a word or phrase as it "
        "is written there, for itself and not as a part of another that is asked for"
    )


def whole_word(text: str, hit: Hit) -> str:
    """The hyphenated or possessive word that a glued hit is a part of: "dog-friendly"."""
    before = re.findall(r"[\w'’‘ʼ‐‑-]*$", text[: hit.start])[0]
    after = re.findall(r"^[\w'’‘ʼ‐‑-]*", text[hit.start :])[0]
    return f"{before}{after}"


def _folded(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The text as it is compared, and the place in `text` that each of its characters is from.

    Letters with their marks go together, so that no place lies between the two.
    """
    if text.isascii() and " ".join(text.split()) == text:  # most are, and the rest takes its time
        return text.lower(), [(i, i + 1) for i in range(len(text))]
    folded: list[str] = []
    places: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        end = start + 1
        while end < len(text) and unicodedata.category(text[end])[0] == "M":
            end += 1
        letter = unicodedata.normalize("NFC", text[start:end]).casefold()
        letter = unicodedata.normalize("NFC", letter).translate(ALIKE)
        if letter.isspace() and folded and folded[-1] == " ":
            places[-1] = (places[-1][0], end)
        else:
            letter = " " if letter.isspace() else letter
            folded.extend(letter)
            places.extend([(start, end)] * len(letter))
        start = end
    return "".join(folded), places


def _begins(text: str, i: int, glued: bool) -> bool:
    if i == 0:
        return True
    return not (
        _wordy(text[i - 1]) or (not glued and i > 1 and text[i - 1] in GLUE and _wordy(text[i - 2]))
    )


def _ends(text: str, j: int, glued: bool) -> bool:
    if j == len(text):
        return True
    return not (
        _wordy(text[j])
        or (not glued and text[j] in GLUE and j + 1 < len(text) and _wordy(text[j + 1]))
    )


def _wordy(letter: str) -> bool:
    return letter.isalnum() or letter == "_" or unicodedata.category(letter)[0] == "M"
