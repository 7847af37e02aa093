"""Masks as COCO's run-length text and back."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ml.images.arrays import Masks
from ml.images.decoding import MAX_PIXELS


def coco_rle(mask: Masks) -> dict[str, Any]:
    """COCO's run lengths {"size": [h, w], "counts": str} of a mask bool (H,W). ValueError for an
    array that is none."""
    if mask.dtype != bool or mask.ndim != 2:
        raise ValueError(f"expected a mask bool (H,W), got {mask.dtype} {mask.shape}: threshold it")
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def encode_rle(mask: Masks) -> str:
    """`coco_rle` of a mask bool (H,W) as JSON text."""
    return json.dumps(coco_rle(mask))


def decode_rle(text: str) -> Masks:
    """The mask bool (H,W) that `encode_rle` took. ValueError for text that holds no mask."""
    try:
        rle = json.loads(text)
        (height, width), runs = (int(side) for side in rle["size"]), run_lengths(rle["counts"])
        if height * width > MAX_PIXELS:
            raise ValueError(f"more than {MAX_PIXELS:,} pixels")
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


def runs_to_mask(runs: Sequence[int], height: int, width: int) -> Masks:
    """The mask bool (H,W) of runs down the columns, background first. ValueError unless they are
    the runs of so many pixels."""
    if min(height, width) < 1 or min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise ValueError(
            f"expected run lengths over {height}x{width} pixels, got {len(runs)} runs "
            f"over {sum(runs)}"
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T
