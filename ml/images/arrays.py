"""The arrays that stand for pictures, by dtype; their shapes stand in the docstrings."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Picture: TypeAlias = npt.NDArray[np.uint8]
"""(H,W,3) RGB."""
Greys: TypeAlias = npt.NDArray[np.uint8]
"""(H,W)."""
Labels: TypeAlias = npt.NDArray[np.uint8]
"""(H,W): 0 is background, 255 ignored."""
Integers: TypeAlias = npt.NDArray[np.integer]
"""Labels of any width, as a file has them."""
Masks: TypeAlias = npt.NDArray[np.bool_]
"""(H,W) or (n,H,W)."""
