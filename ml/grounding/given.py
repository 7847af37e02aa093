"""Pictures that a caller brings: read, resized to the model's size, and masks brought back to their
own.

Not here: files of datasets (`ml.images`).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ml.images.photographs import open_picture, show_picture

Picture = Image.Image | np.ndarray | torch.Tensor | str | Path
"""An array is (H,W,3) RGB, uint8 or float in 0..1; a tensor (3,H,W), float in 0..1."""
EXPECTED = (
    "expected a picture as PIL.Image, as the path of a file, as array (H,W,3) RGB, uint8 or float "
    "in 0..1, or as tensor (3,H,W), float in 0..1; or several, in a list or with a first axis more"
)


def pictures_of(given: Picture | Sequence[Picture]) -> tuple[list[np.ndarray], bool]:
    """Pictures uint8 (H,W,3), and whether one was given and not several, in a list, an array
    (B,H,W,3) or a tensor (B,3,H,W). Raises ValueError for none, and for what `read` refuses."""
    if isinstance(given, np.ndarray | torch.Tensor):
        several = given.ndim == 4
    else:
        several = isinstance(given, Sequence) and not isinstance(given, str)
    if not several:
        return [read(given)], True
    pictures = [read(picture) for picture in given]  # type: ignore[union-attr]  # a path is one
    if not pictures:
        raise ValueError(f"expected at least one picture, got none in {given!r:.80}")
    return pictures, False


def read(picture: object) -> np.ndarray:
    """uint8 (H,W,3) RGB.

    A file and a PIL picture alike are read as a viewer shows them (`ml.images.photographs`): turned
    as their EXIF flag says, transparency on white. Floats are rounded. Raises ValueError for an
    array or tensor of another shape, type or range, a picture without pixels or of a range that is
    not known, a file that is no picture, and anything else.
    """
    if isinstance(picture, str | Path):
        if not Path(picture).is_file():
            raise ValueError(
                f"no file {str(picture)!r}: expected the path of a picture "
                f"(working directory: {str(Path.cwd())!r})"
            )
        return open_picture(Path(picture), str(picture))
    if isinstance(picture, Image.Image):
        return show_picture(picture, "the PIL picture")
    if isinstance(picture, torch.Tensor):
        if picture.ndim == 3 and picture.shape[0] == 3 and picture.is_floating_point():
            values = picture.detach().to("cpu", torch.float32)
            return _levels(values.permute(1, 2, 0).numpy())
        raise ValueError(f"{EXPECTED}; got a tensor {picture.dtype} {tuple(picture.shape)}")
    if isinstance(picture, np.ndarray):
        if picture.ndim == 3 and picture.shape[2] == 3 and picture.size:
            if picture.dtype == np.uint8:
                return picture
            if np.issubdtype(picture.dtype, np.floating):
                return _levels(picture)
        raise ValueError(f"{EXPECTED}; got an array {picture.dtype} {picture.shape}")
    raise ValueError(f"{EXPECTED}; got {type(picture).__name__}")


def _levels(values: np.ndarray) -> np.ndarray:
    """uint8 of floats (H,W,3) in 0..1."""
    if not values.size:
        raise ValueError(f"{EXPECTED}; got no pixels, {values.shape}")
    low, high = float(values.min()), float(values.max())
    if not (0 <= low and high <= 1):  # nan too
        raise ValueError(
            f"{EXPECTED}; got floats in {low:g}..{high:g}: scale them to 0..1, or convert levels "
            "0..255 to uint8"
        )
    return np.asarray(np.rint(values.astype(np.float32) * 255), np.uint8)


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
