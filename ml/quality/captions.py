"""Is a caption a caption: what no text of a picture holds, and what would act where it is shown."""

import re
import unicodedata

from ml.words.spans import UNSEEN

MOST_LETTERS = 1000
"""Of a caption. Text encoders read some 75 tokens, which are 400 letters at most."""
MARKUP = re.compile(r"<[a-zA-Z/!?]")
FORMULA = re.compile(r"[=@]|[+-].*[(|!]")
"""What a spreadsheet runs when a cell begins with it; a dash before words is a dash."""


def caption_fault(text: str) -> str:
    """What is wrong with a caption, in words; "" when nothing is."""
    if bad := next((c for c in text if unicodedata.category(c) in UNSEEN), None):
        return f"invisible character U+{ord(bad):04X}"
    if len(text) > MOST_LETTERS:
        return f"{len(text)} letters"
    if MARKUP.search(text):
        return "markup"
    return "spreadsheet formula" if FORMULA.match(text.lstrip()) else ""
