"""Facts of a picture that a check can judge without its pixels: grey levels, sharpness, hashes."""

import hashlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from ml.images.arrays import Greys, Picture


def grey_levels(image: Picture) -> Greys:
    """ITU-R 601 grey of a picture uint8 (H,W,3): uint8 (H,W)."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a picture uint8 (H,W,3), got {image.dtype} {image.shape}")
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).convert("L"))


def picture_facts(image: Picture) -> dict[str, int | float | str]:
    """What a check can judge without the pixels: the `_PICTURE` columns of ml.store.schemas."""
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


def pixel_digest(image: npt.NDArray[np.generic]) -> str:
    """Hex sha256 over an array's shape and values, whatever its compression on disk."""
    digest = hashlib.sha256(repr(tuple(image.shape)).encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def difference_hash(image: Picture) -> str:
    """64-bit difference hash, 16 hex digits: shrunk to 9x8 greys, is a pixel darker than its right
    neighbour? Most significant bit first, row by row."""
    small = np.asarray(Image.fromarray(grey_levels(image)).resize((9, 8), Image.Resampling.BOX))
    return np.packbits(small[:, :-1] < small[:, 1:]).tobytes().hex()
