"""Answers as HTML: pictures with a layer for each mask, heat maps, numbers, and a text for each.

Masks are shown and hidden in the browser alone, by the boxes beside their words. What people typed
is escaped by the templates. Not here: what the answers are made of.
"""

import base64
import functools
import io
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from PIL import Image

from ml.app.answers import Answer
from ml.app.browsing import Page
from ml.app.comparing import Comparison
from ml.app.finding import Found
from ml.images.overlays import MASK_COLOURS, inner, overlay
from ml.images.png import encode_png
from ml.pipeline.marks import VERDICTS

TINT, OUTLINE = 128, 255
"""Opacity of a mask's inside and of its edge, 0..255."""
SMALL = 256
"""Pixels of a side up to which a picture is enlarged without smoothing: its pixels are few."""


def page(template: str, **values: Any) -> str:
    """The HTML of a template of this folder; texts in it are escaped."""
    return _environment().get_template(template).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def message(text: str, kind: str = "done") -> str:
    """What a tab says in words. kind: "done", or "error" for what was refused."""
    return page("message.html.j2", text=text, kind=kind)


def drawn(answers: list[Answer]) -> str:
    """Pictures that were drawn, all of the same words."""
    return page("drawn.html.j2", answers=[_shown(answer) for answer in answers])


def found(answer: Found) -> str:
    """A picture in which words were looked for, the segmenter's beside it."""
    segmented = None
    if answer.segmented is not None:
        own = answer.segmented
        masks = np.array([own.labels == label for label in own.names])
        colours = [_colour(own.colours[label]) for label in own.names]
        segmented = {
            "uri": uri(overlay(answer.answer.picture, masks, colours)),
            "title": own.title,
            "classes": [
                {"name": name, "share": float(mask.mean()), "colour": _hex(colour)}
                for name, mask, colour in zip(own.names.values(), masks, colours, strict=True)
            ],
        }
    return page(
        "found.html.j2",
        answer=_shown(answer.answer),
        threshold=answer.threshold,
        size=answer.size,
        segmented=segmented,
    )


def browsed(own: Page) -> str:
    """A page of a set: each mask with the verdicts that may be given."""
    items = []
    for place, item in enumerate(own.items):
        colour = MASK_COLOURS[0]
        items.append(
            {
                "stage": item.stage,
                "key": item.key,
                "text": item.text,
                "word": item.word,
                "reason": item.reason,
                "sha256": item.sha256,
                "verdict": item.verdict,
                "name": f"verdict-{place}",
                "uri": uri(item.picture),
                "layer": None if item.mask is None else layer_uri(item.mask, colour),
                "width": item.picture.shape[1],
                "height": item.picture.shape[0],
                "few_pixels": max(item.picture.shape[:2]) <= SMALL,
            }
        )
    return page("browsed.html.j2", items=items, verdicts=VERDICTS)


def compared(comparison: Comparison, one: str, other: str) -> str:
    """Two runs side by side."""
    return page("compared.html.j2", comparison=comparison, one=one, other=other)


def _shown(answer: Answer) -> dict[str, Any]:
    """An answer as the templates show it."""
    words = []
    for place, own in enumerate(answer.words):
        colour = _colour(place)
        attention = own.attention_mask
        words.append(
            {
                "word": own.word,
                "index": place,
                "share": own.share,
                "presence": own.presence,
                "there": bool(own.mask.any()),
                "colour": _hex(colour),
                "layer": layer_uri(own.mask, colour),
                "probability": uri(heat(own.probability)),
                "attention": None if own.attention is None else uri(heat(own.attention)),
                "attention_layer": None if attention is None else layer_uri(attention, colour),
                "attention_share": None if attention is None else float(attention.mean()),
            }
        )
    return {
        "name": answer.name,
        "uri": uri(answer.picture),
        "width": answer.picture.shape[1],
        "height": answer.picture.shape[0],
        "few_pixels": max(answer.picture.shape[:2]) <= SMALL,
        "words": words,
    }


def heat(values: np.ndarray) -> np.ndarray:
    """float (H,W) in 0..1 as a picture uint8 (H,W,3), dark to bright, readable without colours."""
    coloured = matplotlib.colormaps["inferno"](np.clip(values, 0, 1))[..., :3]
    picture: np.ndarray = (coloured * 255).round().astype(np.uint8)
    return picture


def uri(picture: np.ndarray) -> str:
    """A picture uint8 (H,W,3) as a data URI."""
    return _data(encode_png(picture))


def layer_uri(mask: np.ndarray, colour: np.ndarray) -> str:
    """A mask bool (H,W) as a data URI to lay over its picture: tinted, its edge opaque, all else
    transparent."""
    layer = np.zeros((*mask.shape, 4), np.uint8)
    layer[..., :3] = colour
    layer[..., 3] = np.where(inner(mask), TINT, np.where(mask, OUTLINE, 0))
    buffer = io.BytesIO()
    Image.fromarray(layer).save(buffer, "PNG")
    return _data(buffer.getvalue())


def _colour(place: int) -> np.ndarray:
    """uint8 (3,) of the word at a place; they come again after the last."""
    colour: np.ndarray = MASK_COLOURS[place % len(MASK_COLOURS)]
    return colour


def _hex(colour: np.ndarray) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
