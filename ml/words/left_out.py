"""What remains of a prompt when one of its phrases is left out.

Not here: where a phrase stands in a text (`ml.words.spans`).
"""

import re
from collections.abc import Sequence

from ml.words.spans import own_spans

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
    "a photograph of"; a prompt that is nothing but the phrase leaves "a photograph of". phrases:
    all that the prompt is asked for, none of which is cut into (`ml.words.spans.occurrences`).
    Raises ValueError when the phrase is not in the prompt.
    """
    start, end = own_spans(prompt, phrase, phrases)[0]
    before, after = prompt[:start].rstrip(), prompt[end:].lstrip()
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
    return rest.strip() or NOTHING


def _join_last(listed: str) -> str:
    """ "a dog, a cat" -> "a dog and a cat": the list has lost its last thing."""
    head, comma, tail = listed.rpartition(", ")
    return f"{head} and {tail}" if comma else listed
