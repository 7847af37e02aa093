"""How the pictures of the stages look: rows of tiles, lines of text, bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw

from ml.images.arrays import Labels, Masks, Picture
from ml.images.captions import caption_font
from ml.images.contact_sheet import contact_sheet
from ml.store.files import atomic

WIDTH = 1152
"""Pixels of every picture, so that all stages have one width on the page."""
SEEN, UNSEEN, INK = (30, 110, 60), (190, 60, 20), (60, 60, 60)


@dataclass(frozen=True)
class Tile:
    """A picture uint8 (H,W,3), what is laid over it (nothing, masks or labels), its caption."""

    image: Picture
    over: Masks | Labels | None
    caption: str


def sheet(tiles: Sequence[Tile], path: Path, columns: int) -> None:
    """Writes a contact sheet of about WIDTH. ValueError without any tile."""
    if not tiles:
        raise ValueError(f"{path.name}: nothing to show; expected a finished run of this profile")
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(
        [tile.image for tile in tiles],
        [tile.over for tile in tiles],
        [tile.caption for tile in tiles],
        path,
        columns=columns,
        scale=(WIDTH / columns - 6) / max(tile.image.shape[1] for tile in tiles),
    )


def heat(values: np.ndarray) -> Picture:
    """A map float (H,W) in colours, uint8 (H,W,3): the lowest value dark, the highest bright."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low or 1.0)
    colours = matplotlib.colormaps["inferno"](scaled)[..., :3]
    return np.asarray((255 * colours).round().astype(np.uint8))


def text_lines(lines: Sequence[tuple[str, str, Mapping[str, bool]]], path: Path) -> None:
    """Writes one line a prompt: its purpose, then the text, its words coloured by whether they are
    seen. lines: (purpose, text, word -> seen)."""
    font, step, left = caption_font([text for _, text, _ in lines]), 26, 90
    drawn = Image.new("RGB", (WIDTH // 2, step * len(lines) + 16), "white")
    pen = ImageDraw.Draw(drawn)
    for row, (purpose, text, words) in enumerate(lines):
        y, x, rest = 10 + row * step, float(left), text
        pen.text((10, y), purpose, fill=INK, font=font)
        while rest:
            found = [(rest.find(word), word) for word in words if word in rest]
            start, word = min(found) if found else (len(rest), "")
            colour = SEEN if words.get(word) else UNSEEN
            for part, ink in ((rest[:start], INK), (word, colour)):
                pen.text((x, y), part, fill=ink, font=font)
                x += font.getlength(part)
            rest = rest[start + len(word) :]
    _write(drawn.resize((WIDTH, drawn.height * 2), Image.Resampling.LANCZOS), path)


def bars(scores: Mapping[str, tuple[float, str]], floors: Mapping[str, float], path: Path) -> None:
    """Writes a bar a model, from 0 to 100 %, with a line at its floor. scores: (percent, state)."""
    font, step, left, span = caption_font(list(scores)), 34, 90, 400
    drawn = Image.new("RGB", (WIDTH // 2, step * len(scores) + 14), "white")
    pen = ImageDraw.Draw(drawn)
    for row, (name, (score, state)) in enumerate(scores.items()):
        y = 10 + row * step
        pen.text((10, y + 4), name, fill=INK, font=font)
        pen.rectangle((left, y, left + span, y + 18), outline=(200, 200, 200))
        pen.rectangle((left, y, left + span * score / 100, y + 18), fill=(110, 150, 215))
        pen.text((left + 6, y + 4), f"{score:.1f} %, {state}", fill="white", font=font)
        at = left + span * floors[name] / 100
        pen.line((at, y - 4, at, y + 22), fill=UNSEEN, width=2)
        pen.text((at + 4, y + 4), f"floor {floors[name]:g} %", fill="white", font=font)
    _write(drawn.resize((WIDTH, drawn.height * 2), Image.Resampling.LANCZOS), path)


def _write(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        picture.save(temporary, format="JPEG", quality=88, optimize=True)
