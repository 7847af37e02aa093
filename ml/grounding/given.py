"""Pictures that a caller brings: read, resized to the model's size, and masks brought back to their
own.

Not here: files of datasets (`ml.images`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ml.images.photographs import open_picture

Picture = Image.Image | np.ndarray | str | Path
"""An array is uint8 (H,W,3) RGB."""


def pictures_of(given: Picture | Sequence[Picture]) -> tuple[list[np.ndarray], bool]:
    """Pictures uint8 (H,W,3), and whether one was given and not several, in a list or an array
    (B,H,W,3). Raises ValueError for none, and for what `read` refuses."""
    if isinstance(given, Image.Image | str | Path) or (
        isinstance(given, np.ndarray) and given.ndim == 3
    ):
        return [read(given)], True
    if not isinstance(given, Sequence | np.ndarray) or not _count(given):
        raise ValueError(f"expected a picture, or a list of at least one, got {given!r:.80}")
    return [read(picture) for picture in given], False


def _count(given: Sequence[Picture] | np.ndarray) -> int:
    return 0 if isinstance(given, np.ndarray) and not given.ndim else len(given)


def read(picture: object) -> np.ndarray:
    """uint8 (H,W,3) RGB.

    A file is turned as its EXIF says, a PIL picture is taken as it stands; transparency is dropped.
    Raises ValueError for an array that is not uint8 (H,W,3), a PIL picture of more than 8 bits a
    channel, a file that is no picture, and anything else.
    """
    if isinstance(picture, str | Path):
        if not Path(picture).is_file():
            raise ValueError(f"no file {str(picture)!r}: expected the path of a picture")
        return open_picture(Path(picture), str(picture))
    if isinstance(picture, Image.Image):
        if picture.mode.startswith(("I", "F")):
            raise ValueError(
                f"expected a PIL picture of 8 bits a channel, got mode {picture.mode}, whose range "
                'is not known; scale it to 0..255 and convert it to "RGB"'
            )
        return np.asarray(picture.convert("RGB"))
    if isinstance(picture, np.ndarray) and picture.dtype == np.uint8:
        if picture.ndim == 3 and picture.shape[2] == 3 and picture.size:
            return picture
    got = (
        f"{picture.dtype} {picture.shape}"
        if isinstance(picture, np.ndarray)
        else type(picture).__name__
    )
    raise ValueError(
        f"expected a picture as PIL.Image, as array uint8 (H,W,3) RGB or as the path of a file, "
        f"got {got}"
    )


def squared(picture: np.ndarray, side: int) -> np.ndarray:
    """uint8 (side,side,3), squeezed where the picture is no square; the same array at that size."""
    if picture.shape[:2] == (side, side):
        return picture
    size = (side, side)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def enlarged(maps: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Maps (n,h,w) at another size (H,W): each pixel has the value of the one that it lies in."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.intp)
        for new, old in zip(size, maps.shape[1:], strict=True)
    )
    if tuple(size) == maps.shape[1:]:
        return maps
    return maps[:, rows[:, None], columns[None, :]]
