"""Pictures and masks for the probe where no model has made any."""

import numpy as np


def box_mask(side: int, place: int) -> np.ndarray:
    """bool (side,side), a box of a quarter of the picture that moves with `place`."""
    mask = np.zeros((side, side), bool)
    corner = (place % 4) * side // 8
    mask[corner : corner + side // 2, corner : corner + side // 2] = True
    return mask


def noise(side: int) -> np.ndarray:
    """Two pictures uint8 (2,side,side,3), where there is no diffusion model to draw any."""
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
