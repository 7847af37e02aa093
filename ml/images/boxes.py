"""The box around a mask."""

import numpy as np

from ml.images.arrays import Masks


def mask_box(mask: Masks) -> tuple[int, int, int, int]:
    """x1,y1,x2,y2 around a mask bool (H,W), far edges exclusive; zeros for an empty mask."""
    if not mask.any():
        return 0, 0, 0, 0
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
