"""What remains of a prompt when one of its phrases is left out.

Not here: where a phrase stands in a text (`ml.words.spans`).
"""

import re
from collections.abc import Sequence

from ml.words.phrases import phrase_start, without_article
from ml.words.spans import find, fold, own_spans

NOTHING = "a photograph of"
"""What a prompt of nothing but the phrase becomes when the phrase is left out."""
JOINERS = (
    "and",
    "or",
    "with",
    "beside",
    "near",
    "next to",
    "close to",
    "behind",
    "in front of",
    "on the left of",
    "on the right of",
    "to the left of",
    "to the right of",
    "left of",
    "right of",
    "on top of",
    "above",
    "below",
    "under",
    ",",
)
"""Joiners between two named things; one is removed together with the thing."""
DANGLING = ("on", "in", "at", "over", "by")
"""Kept before a place ("on grass"), dropped where what followed has gone."""


def _either(words: Sequence[str]) -> str:
    ordered = sorted(words, key=len, reverse=True)  # "to the left of" before "left of"
    return "|".join(re.escape(w) if w == "," else rf"\b{re.escape(w)}\b" for w in ordered)


_JOINER_BEFORE = re.compile(rf"\s*({_either(JOINERS + DANGLING)})\s*$", re.IGNORECASE)
_JOINER_AFTER = re.compile(rf"^\s*({_either(JOINERS)})\s*", re.IGNORECASE)


def without_phrase(prompt: str, phrase: str, phrases: Sequence[str] = ()) -> str:
    """What remains of a prompt when a phrase ("a red car") is left out, its joiner with it.

    "a dog next to a cat" without "a dog" is "a cat"; "a photograph of a dog" without it is
    "a photograph of"; a prompt that is nothing but the phrase leaves "a photograph of". What the
    phrase names goes at all of its places, under any article ("a dog and the other dog"): against a
    text that still names it, the prompt has no contrast. phrases: all that the prompt is asked
    for, none of which is cut into (`ml.words.spans.occurrences`).
    Raises ValueError when the phrase is not in the prompt.
    """
    first = own_spans(prompt, phrase, phrases)[0]
    places = _places(prompt, phrase, phrases)
    if len(places) < 2:
        return _without(prompt, first) or NOTHING
    rest = prompt
    for _ in places:  # found anew each time: what joins the others changes too
        if left := _places(rest, phrase, phrases):
            rest = _without(rest, left[0])
    return rest or NOTHING


def _places(text: str, phrase: str, phrases: Sequence[str]) -> list[tuple[int, int]]:
    """(start, end) of a phrase wherever it stands, and of what it names with other articles and
    adjectives; not of what another phrase names."""
    whole, named = fold(phrase), fold(without_article(phrase))
    others = {fold(other) for other in phrases} - {whole}
    others |= {fold(without_article(other)) for other in others}
    own = {whole} | ({named} - others)
    hits = find(text, own | others)
    floors = (0, *(hit.end for hit in hits))
    return [
        (phrase_start(text, hit.start, floor) if hit.key == named else hit.start, hit.end)
        for hit, floor in zip(hits, floors, strict=False)
        if hit.key in own
    ]


def _without(text: str, span: tuple[int, int]) -> str:
    """A text without one of its places; empty if there is nothing else."""
    before, after = text[: span[0]].rstrip(), text[span[1] :].lstrip()
    joined_before = _JOINER_BEFORE.search(before)
    joined_after = _JOINER_AFTER.search(after)
    if joined_before:
        before = before[: joined_before.start()]
    elif joined_after:
        after = after[joined_after.end() :]
    if joined_before and joined_before[1].lower() == "and" and not joined_after:
        before = _join_last(before)
    elif not joined_before and not joined_after and after and before.lower().endswith(" of"):
        before = before[:-3]  # "a photograph of" + "on grass"
    rest = before + after if after.startswith(",") else f"{before} {after}"
    return rest.strip()


def _join_last(listed: str) -> str:
    """ "a dog, a cat" -> "a dog and a cat": the list has lost its last thing."""
    head, comma, tail = listed.rpartition(", ")
    return f"{head} and {tail}" if comma else listed
