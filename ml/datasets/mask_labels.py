"""What the samples of a user's mask mean: labels, or colours that stand for labels."""

from collections.abc import Mapping

import numpy as np

from ml.datasets.checks import require_labels
from ml.images.arrays import Labels
from ml.images.label_maps import Mask
from ml.images.overlays import IGNORED

Colour = tuple[int, int, int]


def labels_of(mask: Mask, names: Mapping[int, str], colours: Mapping[Colour, int]) -> Labels:
    """The label map uint8 (H,W) of a mask: 0, 255 and the labels of `names`.

    colours: what each colour stands for, of a mask in colours; empty for one of labels. Raises
    ValueError for other labels or colours, and for a palette that has been renumbered.
    """
    if colours:
        return _by_colour(mask, colours)
    greys = mask.greys()
    labels = {0, IGNORED, *names} if set(greys.values()) - {0, IGNORED} else set()
    if labels.issuperset(greys.values()) and any(i != grey for i, grey in greys.items()):
        raise ValueError(
            f"{mask.path}: its indices {sorted(greys)} stand for a palette of "
            f"greys that are labels, too: {list(greys.values())}. A tool that "
            "shrinks PNGs may have renumbered them; save it as a grey PNG, or "
            "with a palette of colours"
        )
    return require_labels(mask.path, mask.labels(), names)


def _by_colour(mask: Mask, colours: Mapping[Colour, int]) -> Labels:
    pixels = mask.colours()
    packed = pixels.astype(np.int64) @ [65536, 256, 1]
    values, inverse = np.unique(packed, return_inverse=True)
    found = [(int(v) >> 16, int(v) >> 8 & 255, int(v) & 255) for v in values]
    if strange := [colour for colour in found if colour not in colours]:
        raise ValueError(
            f"{mask.path} holds the colours {strange[:4]} that palette.txt does not "
            "list; expected its colours, black and white only. Was the mask "
            "saved as JPEG, or with soft edges?"
        )
    labels = np.array([colours[colour] for colour in found], np.uint8)
    return labels[inverse].reshape(pixels.shape[:2])
