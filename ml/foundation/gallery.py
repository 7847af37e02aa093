"""python -m ml.foundation.gallery --out docs/images/world.png

The contact sheet that opens the README: every class alone, then scenes of two and three.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from ml.drawn_world.placement import SIZE
from ml.drawn_world.world import CLASSES, draw_scene, scene_seed
from ml.errors import EXIT_CODES, exit_path
from ml.store.files import atomic

COLUMNS, GAP, ZOOM = 10, 2, 2


def gallery() -> np.ndarray:
    """uint8 (H,W,3): two rows of single objects, in the order of CLASSES, two rows of scenes."""
    alone = [draw_scene(scene_seed("gallery", i), classes=[name]) for i, name in enumerate(CLASSES)]
    together = [
        draw_scene(scene_seed("gallery", 100 + i), n_objects=2 + (i % 4 == 3))
        for i in range(2 * COLUMNS)
    ]
    tiles = [scene.image for scene in alone + together]
    cell, rows = SIZE + GAP, len(tiles) // COLUMNS
    sheet = np.full((rows * cell - GAP, COLUMNS * cell - GAP, 3), 255, np.uint8)
    for place, tile in enumerate(tiles):
        top, left = place // COLUMNS * cell, place % COLUMNS * cell
        sheet[top : top + SIZE, left : left + SIZE] = tile
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXIT_CODES)
    parser.add_argument("--out", type=Path, default=Path("docs/images/world.png"))
    chosen = parser.parse_args()
    sheet = Image.fromarray(gallery())
    large = sheet.resize((sheet.width * ZOOM, sheet.height * ZOOM), Image.Resampling.BICUBIC)
    with atomic(chosen.out) as temporary:
        large.save(temporary, format="PNG", optimize=True)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
