"""Contact sheets: pictures in rows with masks laid over, small enough to be looked at anywhere.

Everything works on numpy arrays: a picture is uint8 (H,W,3) RGB, a label map uint8 (H,W) with 0
background and 255 ignored, masks are bool (n,H,W). Not here: what a stage does with them.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ml.images.arrays import Labels, Masks, Picture
from ml.images.captions import caption_font, readable, wrap
from ml.images.overlays import Colours, label_overlay, overlay
from ml.store.files import atomic

MAX_SHEET_BYTES = 100_000


SHEET_WIDTH = 152
"""Pixels of a picture in a contact sheet when no scale is given; eight of them fill 1,270."""


def spread(count: int, most: int) -> list[int]:
    """At most `most` positions, evenly spread over 0..count-1: what a contact sheet shows."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def contact_sheet(
    images: Sequence[Picture],
    masks_or_labels: Sequence[Masks | Labels | None] | None,
    captions: Sequence[str],
    path: Path,
    columns: int = 8,
    scale: float | None = None,
    colours: Sequence[Colours | None] | None = None,
) -> None:
    """Writes a JPEG of at most 100 KB: pictures in rows, masks laid over, a caption below each.

    masks_or_labels: for each picture None, masks bool (n,H,W), one mask (H,W) or a label map
    uint8 (H,W). colours: for each picture one RGB triple a mask; None takes MASK_COLOURS. scale:
    enlargement; None makes the widest picture 152 pixels. Quality, then size, is stepped down
    until the file fits. Equal input gives equal bytes. ValueError for no picture or a mismatch.
    """
    over = list(masks_or_labels) if masks_or_labels is not None else [None] * len(images)
    tints = list(colours) if colours is not None else [None] * len(images)
    if not len(images) or not len(images) == len(over) == len(captions) == len(tints):
        raise ValueError(
            f"contact sheet {path}: expected one caption and one overlay a picture "
            f"and at least one picture, got {len(images)} pictures, {len(over)} "
            f"overlays, {len(captions)} captions, {len(tints)} colours"
        )
    scale = scale or SHEET_WIDTH / max(image.shape[1] for image in images)
    while True:
        tiles = [_tile(*item, scale) for item in zip(images, over, tints, strict=True)]
        sheet = _arrange(tiles, captions, columns)
        for quality in (90, 84, 78, 70, 62):
            buffer = io.BytesIO()
            sheet.save(buffer, "JPEG", quality=quality, optimize=True)
            if buffer.tell() <= MAX_SHEET_BYTES:
                with atomic(path) as temporary:
                    temporary.write_bytes(buffer.getvalue())
                return
        scale *= 0.85


def _tile(
    image: Picture, over: Masks | Labels | None, colours: Colours | None, scale: float
) -> Image.Image:
    """A picture enlarged with smooth edges, its masks enlarged likewise and then laid over."""
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    size = width, height
    big = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    if over is None:
        return Image.fromarray(big)
    if over.dtype == np.uint8:
        labels = np.asarray(Image.fromarray(over).resize(size, Image.Resampling.NEAREST))
        return Image.fromarray(label_overlay(big, labels))
    masks = [
        np.asarray(
            Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
        )
        > 127
        for mask in over.reshape(-1, *image.shape[:2])
    ]
    return Image.fromarray(overlay(big, np.array(masks, bool), colours))


def _arrange(tiles: Sequence[Image.Image], captions: Sequence[str], columns: int) -> Image.Image:
    font, gap, line = caption_font(captions), 6, 13
    width, height = (max(tile.size[axis] for tile in tiles) for axis in (0, 1))
    lines = [wrap(readable(caption, font), font, width) for caption in captions]
    step_x, step_y = width + gap, height + gap + line * max(map(len, lines)) + 3
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (tile, text) in enumerate(zip(tiles, lines, strict=True)):
        x, y = gap + i % columns * step_x, gap + i // columns * step_y
        sheet.paste(tile, (x, y))
        for row, words in enumerate(text):
            pen.text((x, y + height + 2 + row * line), words, fill=(40, 40, 40), font=font)
    return sheet
