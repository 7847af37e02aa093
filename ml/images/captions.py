"""Text below the pictures of a contact sheet: a font that draws it, lines that fit."""

from collections.abc import Sequence
from typing import TypeAlias

from PIL import ImageFont

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont

CAPTION_LINES = 2


def caption_font(captions: Sequence[str]) -> Font:
    """Pillow's own font, or matplotlib's where a caption has signs that the former lacks."""
    font = ImageFont.load_default(11)
    if all(_draws(font, sign) for sign in set("".join(captions))):
        return font
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 10)


def _draws(font: Font, sign: str) -> bool:
    """Whether a font has a glyph for a character, other than the empty box."""
    return sign.isascii() or bytes(font.getmask(sign)) != bytes(font.getmask("\uffff"))


def readable(caption: str, font: Font) -> str:
    """The caption with `U+5B57` for each sign that the font lacks."""
    return "".join(sign if _draws(font, sign) else f"U+{ord(sign):04X}" for sign in caption)


def wrap(caption: str, font: Font, width: int) -> list[str]:
    """Lines no wider than a tile; what does not fit in two ends in an ellipsis."""
    lines: list[str] = []
    for word in caption.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], " ".join(lines[CAPTION_LINES - 1 :])]
    return [_cut(text, font, width) for text in lines]


def _cut(text: str, font: Font, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
