"""A mask as one polygon: its outline, with holes and further parts joined by cuts of no width.

So does Ultralytics' converter with the parts of a COCO object, and rasterisers that fill by the
even-odd rule leave the holes open. What is lost is the line of each cut.
"""

import contourpy
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ml.images.arrays import Masks
from ml.images.boxes import mask_box

Points = npt.NDArray[np.float64]
"""(n,2): x, y in pixels, 0 at the left and upper edge of the picture."""
LEVEL, SHIFT = 0.76, 0.25
"""The outline lies 0.24 pixels outside the centres of the boundary's pixels, which are taken to lie
a quarter of a pixel from their left and upper edges. So its points come to just these pixels where
a reader cuts them off to whole numbers (Ultralytics), and where it rounds them (supervision)."""


def rings(mask: Masks) -> list[Points]:
    """The outlines of a mask bool (H,W), of its parts and its holes, the longest first."""
    left, top, right, bottom = mask_box(mask)
    part = np.pad(mask[top:bottom, left:right], 1).astype(np.float32)
    lines = contourpy.contour_generator(z=part, line_type="Separate").lines(LEVEL)
    found = [
        np.asarray(line, np.float64)[:-1] + (left - 1 + SHIFT, top - 1 + SHIFT) for line in lines
    ]
    return sorted(found, key=len, reverse=True)


def joined(parts: list[Points]) -> Points:
    """One closed line through all the rings: the ring that is closest to those joined already is
    the next, and is reached and left at the place where it is closest."""
    whole, left = parts[0], list(range(1, len(parts)))
    cuts = {number: _cut(parts[0], parts[number]) for number in left}
    while left:
        number = min(left, key=lambda one: cuts[one][0])
        left.remove(number)
        part, (_, here, there) = parts[number], cuts[number]
        place = int(np.flatnonzero((whole == here).all(1))[0])
        whole = np.concatenate([whole[: place + 1], part[there:], part[: there + 1], whole[place:]])
        for other in left:
            cuts[other] = min(cuts[other], _cut(part, parts[other]), key=lambda cut: cut[0])
    return whole


def _cut(line: Points, part: Points) -> tuple[float, Points, int]:
    """(the least distance of two rings, the point of the one, the place in the other)."""
    distances, nearest = cKDTree(line).query(part)
    there = int(distances.argmin())
    return float(distances[there]), line[nearest[there]], there


def simplified(line: Points) -> Points:
    """Without the points in the middle of upright and level stretches."""
    before, after = line - np.roll(line, 1, 0), np.roll(line, -1, 0) - line
    straight: npt.NDArray[np.bool_] = ((before == 0) & (after == 0)).any(1) & (
        (before * after).sum(1) > 0
    )
    kept: Points = line[~straight]
    return kept


def outline(mask: Masks) -> tuple[Points, int]:
    """(one polygon of a mask bool (H,W) that is not empty, how many rings it joins)."""
    found = rings(mask)
    return simplified(joined(found)), len(found)
