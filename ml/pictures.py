"""Pictures as bytes and as facts: PNG, run-length masks, hashes, overlays, contact sheets.

Everything works on numpy arrays: a picture is uint8 (H,W,3) RGB, a label map uint8 (H,W) with 0
background and 255 ignored, masks are bool (n,H,W). Not here: what a stage does with them.
"""

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from pycocotools import mask as coco_mask

from ml.files import atomic
from ml.shards import shard_files

IGNORED = 255
SAME_DIFFERENCE = 6.0
"""Levels of 0..255. Pictures with close hashes are one picture when they differ by less on average.
Of 1,500 drawn scenes from different seeds, 35 pairs have hashes within 2 bits; the closest differs
by 13.9 levels on average. Noise of +-8 levels, or JPEG, moves a picture by 2 to 4."""
MAX_SHEET_BYTES = 100_000
MASK_COLOURS = np.array(
    [(236, 0, 160), (0, 190, 255), (255, 200, 0), (60, 200, 60), (150, 80, 255)], np.uint8
)
"""Tints of the first, second, ... mask of a picture. VOC's first colours are too dark to see, and
red drowns in the drawn world's many red and orange objects."""
SHEET_WIDTH = 152
"""Pixels of a picture in a contact sheet when no scale is given; eight of them fill 1,270."""
CAPTION_LINES = 2


def voc_palette() -> np.ndarray:
    """PASCAL VOC's colour map, uint8 (256,3): the bits of a label, three at a time, become the
    high bits of red, green and blue."""
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            value = (labels >> (3 * bit + channel)) & 1
            palette[:, channel] |= (value << (7 - bit)).astype(np.uint8)
    return palette


PALETTE = voc_palette()


def encode_png(picture: np.ndarray) -> bytes:
    """PNG bytes of a picture uint8 (H,W,3) or a label map uint8 (H,W). ValueError for others."""
    colour = picture.ndim == 3 and picture.shape[2] == 3
    if picture.dtype != np.uint8 or not (colour or picture.ndim == 2) or picture.size == 0:
        raise ValueError(
            f"expected uint8 (H,W,3) or (H,W), got {picture.dtype} {picture.shape}: "
            "scale to 0..255 and put channels last"
        )
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg_uri(data: bytes) -> str:
    """The bytes of a JPEG as a data URI, for a page that refers to nothing outside."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def decode_png(data: bytes) -> np.ndarray:
    """The array that `encode_png` took. Palette PNGs give their indices, as VOC's label maps do.

    Raises ValueError for bytes that are not a whole image.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, TypeError) as error:
        raise ValueError(
            f"expected the bytes of a PNG, got {len(data or b'')} bytes that start "
            f"with {bytes(data or b'')[:8]!r}: make this sample again"
        ) from error
    if image.mode not in ("L", "P", "RGB"):
        image = image.convert("RGB")
    return np.array(image)


def load_pictures(folder: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The pictures uint8 (H,W,3) of some keys, out of shards with the columns `key` and `image`.

    Raises ValueError naming a key that is not there.
    """
    wanted, found = set(keys), {}
    for path in shard_files(folder) if wanted else []:
        frame = pd.read_parquet(path, columns=["key", "image"], filters=[("key", "in", wanted)])
        found |= {key: decode_png(data) for key, data in zip(frame.key, frame.image, strict=True)}
    if missing := sorted(wanted - set(found)):
        raise ValueError(
            f"{folder} holds no picture {missing[0]!r} ({len(missing)} are missing): "
            "make the stages that name it from these pictures"
        )
    return found


def spread(count: int, most: int) -> list[int]:
    """At most `most` positions, evenly spread over 0..count-1: what a contact sheet shows."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def encode_rle(mask: np.ndarray) -> str:
    """COCO run-length text of a mask bool (H,W): JSON {"size": [h, w], "counts": str}."""
    if mask.dtype != bool or mask.ndim != 2:
        raise ValueError(f"expected a mask bool (H,W), got {mask.dtype} {mask.shape}: threshold it")
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return json.dumps({"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")})


def decode_rle(text: str) -> np.ndarray:
    """The mask bool (H,W) that `encode_rle` took. ValueError for text that holds no mask."""
    try:
        rle = json.loads(text)
        (height, width), runs = (int(side) for side in rle["size"]), run_lengths(rle["counts"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'expected JSON {{"size": [h, w], "counts": str}}, got {text[:60]!r} '
            '("" stands for no mask: look at `found` first)'
        ) from error
    return runs_to_mask(runs, height, width)


def run_lengths(counts: str) -> list[int]:
    """The numbers in COCO's text of run lengths: 5 bits a character from the lowest on, the sixth
    says that more follow; from the fourth number on, the difference to the one two before.

    Read here and not by pycocotools, which makes some mask of any text.
    """
    runs: list[int] = []
    value = bits = 0
    for place, character in enumerate(counts):
        code = ord(character) - 48
        if not 0 <= code < 64 or bits > 30:
            raise ValueError(f"no run lengths: character {place} is {character!r}")
        value |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << bits
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = bits = 0
    if bits:
        raise ValueError("the run lengths end within a number")
    return runs


def runs_to_mask(runs: Sequence[int], height: int, width: int) -> np.ndarray:
    """The mask bool (H,W) of runs down the columns, background first. ValueError unless they are
    the runs of so many pixels."""
    if min(height, width) < 1 or min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise ValueError(
            f"expected run lengths over {height}x{width} pixels, got {len(runs)} runs "
            f"over {sum(runs)}"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def grey_levels(image: np.ndarray) -> np.ndarray:
    """ITU-R 601 grey of a picture uint8 (H,W,3): uint8 (H,W)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a picture uint8 (H,W,3), got {image.dtype} {image.shape}")
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L"))


def picture_facts(image: np.ndarray) -> dict:
    """What a check can judge without the pixels: the `_PICTURE` columns of ml.schemas."""
    grey = grey_levels(image)
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    share = share[share > 0]
    level = grey.astype(np.float64)
    edges = (
        level[:-2, 1:-1]
        + level[2:, 1:-1]
        + level[1:-1, :-2]
        + level[1:-1, 2:]
        - 4 * level[1:-1, 1:-1]
    )  # the 4-neighbour Laplacian, inner pixels only
    return {
        "width": int(image.shape[1]),
        "height": int(image.shape[0]),
        "mean": float(level.mean()),
        "std": float(level.std()),
        "entropy": float(max(0.0, -(share * np.log2(share)).sum())),
        "sharpness": float(edges.var()) if edges.size else 0.0,
        "dhash": difference_hash(image),
        "sha256": pixel_digest(image),
    }


def pixel_digest(image: np.ndarray) -> str:
    """Hex sha256 over an array's shape and values, whatever its compression on disk."""
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def difference_hash(image: np.ndarray) -> str:
    """64-bit difference hash, 16 hex digits: shrunk to 9x8 greys, is a pixel darker than its right
    neighbour? Most significant bit first, row by row."""
    small = np.asarray(Image.fromarray(grey_levels(image)).resize((9, 8), Image.Resampling.BOX))
    return np.packbits(small[:, :-1] < small[:, 1:]).tobytes().hex()


def hamming(a: str, b: str) -> int:
    """Number of bits in which two hashes differ, 0..64."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


def close_pairs(
    hashes: Sequence[str], bits: int, others: Sequence[str] | None = None
) -> np.ndarray:
    """Pairs whose hashes differ in at most `bits` bits: int64 (m,2), sorted.

    Within one list, i < j; with `others`, i indexes `hashes` and j `others`. A close hash is a
    suspicion (`same_picture` decides): flat pictures of one class can share theirs.
    """
    rows = _as_integers(hashes)
    columns = rows if others is None else _as_integers(others)
    found = []
    for i, value in enumerate(rows):
        start = i + 1 if others is None else 0
        close = np.flatnonzero(np.bitwise_count(columns[start:] ^ value) <= bits) + start
        found.append(np.stack([np.full(len(close), i, np.int64), close], axis=1))
    return np.concatenate(found) if found else np.zeros((0, 2), np.int64)


def _as_integers(hashes: Sequence[str]) -> np.ndarray:
    return np.array([int(text, 16) for text in hashes], np.uint64)


def same_picture(a: np.ndarray, b: np.ndarray, max_difference: float = SAME_DIFFERENCE) -> bool:
    """Whether two pictures uint8 (H,W,3) differ by less than so many levels on average."""
    if a.shape != b.shape:
        return False
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean()) < max_difference


def overlay(
    image: np.ndarray, masks: np.ndarray, colours: Sequence | None = None, alpha: float = 0.5
) -> np.ndarray:
    """The picture with each mask tinted and outlined, uint8 (H,W,3).

    masks: bool (n,H,W), later ones on top. colours: n RGB triples; None takes MASK_COLOURS.
    """
    masks = np.asarray(masks, bool).reshape(-1, *image.shape[:2])
    if colours is None:
        colours = MASK_COLOURS[np.arange(len(masks)) % len(MASK_COLOURS)]
    painted = image.astype(np.float32)
    for mask, colour in zip(masks, np.asarray(colours, np.float32).reshape(-1, 3), strict=True):
        painted[mask] = (1 - alpha) * painted[mask] + alpha * colour
        painted[mask & ~_inner(mask)] = colour
    return painted.round().astype(np.uint8)


def _inner(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask whose four neighbours belong to it; beyond the picture counts as inside."""
    wide = np.pad(mask, 1, constant_values=True)
    return wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:] & mask


def label_overlay(image: np.ndarray, labels: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """The picture with a label map uint8 (H,W) laid over in VOC's colours; 255 is VOC's cream."""
    if labels.shape != image.shape[:2]:
        raise ValueError(f"label map: expected {image.shape[:2]}, got {labels.shape}")
    present = [label for label in np.unique(labels) if label]
    masks = np.array([labels == label for label in present]).reshape(-1, *labels.shape)
    return overlay(image, masks, PALETTE[present], alpha)


def contact_sheet(
    images: Sequence[np.ndarray],
    masks_or_labels: Sequence[np.ndarray | None] | None,
    captions: Sequence[str],
    path: Path,
    columns: int = 8,
    scale: float | None = None,
    colours: Sequence[Sequence] | None = None,
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


def _tile(image: np.ndarray, over: np.ndarray | None, colours, scale: float) -> Image.Image:
    """A picture enlarged with smooth edges, its masks enlarged likewise and then laid over."""
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
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
    font, gap, line = _caption_font(captions), 6, 13
    width, height = (max(tile.size[axis] for tile in tiles) for axis in (0, 1))
    lines = [_wrap(_readable(caption, font), font, width) for caption in captions]
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


def _caption_font(captions: Sequence[str]) -> ImageFont.FreeTypeFont:
    """Pillow's own font, or matplotlib's where a caption has signs that the former lacks."""
    font = ImageFont.load_default(11)
    if all(_draws(font, sign) for sign in set("".join(captions))):
        return font
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", 10)


def _draws(font: ImageFont.FreeTypeFont, sign: str) -> bool:
    """Whether a font has a sign, and does not draw the empty box for it."""
    return sign.isascii() or bytes(font.getmask(sign)) != bytes(font.getmask("\uffff"))


def _readable(caption: str, font: ImageFont.FreeTypeFont) -> str:
    """The caption with `U+5B57` for each sign that the font lacks."""
    return "".join(sign if _draws(font, sign) else f"U+{ord(sign):04X}" for sign in caption)


def _wrap(caption: str, font: ImageFont.ImageFont, width: int) -> list[str]:
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


def _cut(text: str, font: ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
