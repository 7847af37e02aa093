"""Texts in charts: drawn as they were typed, whatever characters people's words hold."""

import re

LITERAL = {"text.parse_math": False, "text.usetex": False, "svg.fonttype": "none"}
"""Settings of matplotlib under which `$x$` is not typeset as mathematics, and the reader's fonts
draw characters that matplotlib's lack."""
MOST = 90  # characters of a label
NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # for an SVG


def label(text: str, most: int = MOST) -> str:
    """A text on one line, without control characters, cut with an ellipsis when it is longer than
    `most`."""
    line = " ".join(NO_TEXT.sub("\ufffd", text).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"
