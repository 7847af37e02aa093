"""Do outlines of masks lie on edges of their pictures, or beside them?

A mask is moved over its picture by up to 8 of 64 pixels in each direction; where its outline meets
the strongest edges, it belongs. Sound masks fit best where they are. Masks that something moved all
fit best at the same other place.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from PIL import Image
from scipy import fft

from ml.images.leaks import SIZE, small

REACH = 8
"""Of 64 pixels, to each side."""
LEAST_OUTLINE = 8
"""Pixels of an outline that is looked at; what lies within REACH of the frame does not count."""
AT_ONCE = 256
"""Masks in memory together."""


def edge_map(picture: np.ndarray) -> np.ndarray:
    """Strength of the edges of a picture uint8 (H,W,3): float32 (64,64), 1 on average."""
    grey = small(picture).mean(-1, dtype=np.float32)
    edges = np.zeros_like(grey)
    edges[:-1] += np.abs(np.diff(grey, axis=0))
    edges[:, :-1] += np.abs(np.diff(grey, axis=1))
    return edges / max(float(edges.mean()), 1e-6)


def outline(mask: np.ndarray) -> np.ndarray:
    """The outline of a mask bool (H,W), as `edge_map` has edges, at 64 pixels: bool (64,64)."""
    if mask.shape != (SIZE, SIZE):
        cells = Image.fromarray(mask.astype(np.uint8) * 255)
        mask = np.asarray(cells.resize((SIZE, SIZE), Image.Resampling.BOX)) >= 128
    found = np.zeros(mask.shape, bool)
    found[:-1] |= mask[:-1] ^ mask[1:]
    found[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    found[:REACH] = found[-REACH:] = found[:, :REACH] = found[:, -REACH:] = False
    return found


def strengths(edges: np.ndarray, outlines: np.ndarray) -> np.ndarray:
    """Mean strength of the edges under each outline, moved by (dy,dx): float (n,17,17), the middle
    unmoved. edges: float (n,64,64); outlines: bool (n,64,64), each of some pixels."""
    spectrum = fft.rfft2(edges) * np.conj(fft.rfft2(outlines.astype(np.float32)))
    moved = fft.irfft2(spectrum, edges.shape[1:])
    window = np.arange(-REACH, REACH + 1)
    total: np.ndarray = moved[:, window[:, None], window] / outlines.sum((1, 2))[:, None, None]
    return total


def placement(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Of pairs of an edge map (64,64) and a mask's outline (64,64):

    in_place: strength under all outlines where they are, as a share of the greatest at any offset.
    on_edges: share of the masks that fit best within one pixel of where they are.
    moved_alike: share that fits best at whichever other offset is the most common one.
    Without an outline that is long enough: 1, 1 and 0.
    """
    total, best = np.zeros((2 * REACH + 1, 2 * REACH + 1)), []
    group: list[tuple[np.ndarray, np.ndarray]] = []

    def take() -> None:
        found = strengths(np.stack([e for e, _ in group]), np.stack([o for _, o in group]))
        total[:] += found.sum(0)
        best.extend(found.reshape(len(found), -1).argmax(1))
        group.clear()

    for edges, line in pairs:
        if line.sum() >= LEAST_OUTLINE and edges.any():
            group.append((edges, line))
        if len(group) == AT_ONCE:
            take()
    if group:
        take()
    if not best:
        return {"in_place": 1.0, "on_edges": 1.0, "moved_alike": 0.0}
    offsets = np.stack(np.unravel_index(best, total.shape), 1) - REACH
    near = np.abs(offsets).max(1) <= 1
    common = pd.Series(map(tuple, offsets[~near])).value_counts()
    return {
        "in_place": float(total[REACH, REACH] / max(total.max(), 1e-9)),
        "on_edges": float(near.mean()),
        "moved_alike": float(common.max() / len(offsets)) if len(common) else 0.0,
    }
