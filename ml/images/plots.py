"""Charts in pages: texts drawn as they were typed, whatever characters people's words hold, in the
page's ink."""

import re

LITERAL = {"text.parse_math": False, "text.usetex": False, "svg.fonttype": "none"}
"""Settings of matplotlib under which `$x$` is not typeset as mathematics, and the reader's fonts
draw characters that matplotlib's lack."""
INK = "#22303c"
"""Of axes and texts; in a page it becomes the page's own."""
MOST = 90  # characters of a label
NO_TEXT = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # for an SVG


def label(text: str, most: int = MOST) -> str:
    """A text on one line, without control characters, cut with an ellipsis when it is longer than
    `most`."""
    line = " ".join(NO_TEXT.sub("\ufffd", text).split())
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def own_svg(svg: str, inline: str = "") -> str:
    """matplotlib's SVG without header and metadata; inline, with ids that begin with this text,
    which is unique within the page, and `INK` as the page's ink, light or dark."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    if not inline:
        return svg
    svg = re.sub(r'\bid="', f'id="{inline}-', svg)
    svg = re.sub(r'(url\(#|xlink:href="#)', rf"\g<1>{inline}-", svg)
    return svg.replace(INK, "currentColor")
