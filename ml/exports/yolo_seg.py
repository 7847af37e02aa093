"""Ultralytics' segmentation labels: a polygon a line, and `data.yaml`.

    data.yaml
    images/<split>/<key>.png
    labels/<split>/<key>.txt     class x y x y ..., in shares of the picture

A line is one object, whatever holes and parts it has (`ml.exports.outlines`). supervision's own
writer makes an object of every part and of every hole; here it draws the polygons again, so that
what they lose is known.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ml.exports.about import About
from ml.exports.origins import Origins
from ml.exports.outlines import Points, outline
from ml.exports.pictures import Picture
from ml.exports.writing import Writer
from ml.images.arrays import Masks

with warnings.catch_warnings():  # that it goes without OpenCV, which we do not need
    warnings.simplefilter("ignore")
    from supervision import polygon_to_mask

READ = """\
from ultralytics import YOLO

YOLO("yolo11n-seg.pt").train(data="{folder}/data.yaml", epochs=1)
"""
DIGITS = 6


class FormatWriter(Writer):
    READ = READ
    LOSES = (
        "An object is one polygon: where it has holes or several parts, cuts of no width join "
        "them, and readers draw each cut as a line of one pixel.",
        "Uncertain pixels (255) become background: the format has no label for them.",
    )

    def __init__(self, folder: Path, about: About, splits: tuple[str, ...]) -> None:
        if not {"train", "val"} <= set(splits):
            raise ValueError(
                f"yolo-seg: expected the splits train and val (and test), which Ultralytics reads, "
                f"got {', '.join(splits)}"
            )
        self.folder = folder
        for kind in ("images", "labels"):
            for name in splits:
                (folder / kind / name).mkdir(parents=True)
        data = {name: f"images/{name}" for name in splits}
        names = dict(enumerate(about.classes))
        (folder / "data.yaml").write_text(
            yaml.safe_dump({**data, "names": names}, allow_unicode=True, sort_keys=False),
            encoding="utf-8",
        )
        self.origins = Origins(folder, about)
        self.objects = self.joined = 0
        self.total, self.least = 0.0, 1.0  # of the objects' IoU

    def add(self, picture: Picture) -> None:
        image = self.folder / "images" / picture.split / f"{picture.key}.{picture.suffix}"
        image.write_bytes(picture.data)
        lines = []
        for label in picture.labels:
            mask = picture.mask(label)
            points, count = outline(mask)
            shares = np.round(points / mask.shape[::-1], DIGITS)
            numbers = " ".join(f"{value:.{DIGITS}f}".rstrip("0") for value in shares.ravel())
            lines.append(f"{label - 1} {numbers}\n")
            self._compare(mask, shares, count)
        text = self.folder / "labels" / picture.split / f"{picture.key}.txt"
        text.write_text("".join(lines))
        self.origins.add(picture)

    def _compare(self, mask: Masks, shares: Points, count: int) -> None:
        """What readers make of a polygon, against the mask."""
        read = drawn_again(shares, mask.shape)
        iou = float((read & mask).sum() / (read | mask).sum())
        self.objects += 1
        self.joined += count > 1
        self.total += iou
        self.least = min(self.least, iou)

    def finish(self) -> dict[str, Any]:
        self.origins.finish()
        return {
            "objects": self.objects,
            "objects_of_several_rings": self.joined,
            "polygon_iou_mean": self.total / max(self.objects, 1),
            "polygon_iou_least": self.least,
        }


def drawn_again(shares: Points, shape: tuple[int, ...]) -> Masks:
    """The mask bool (H,W) that readers draw of a polygon in shares of the picture: its points cut
    off to whole pixels, filled with the edge."""
    points = shares.astype(np.float32) * np.array(shape[::-1], np.float32)
    found: Masks = polygon_to_mask(points, (shape[1], shape[0])) > 0
    return found
