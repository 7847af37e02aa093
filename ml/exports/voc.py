"""PASCAL VOC 2012's layout, as VOC's own tools and torchvision read it.

    VOCdevkit/VOC2012/JPEGImages/<key>.jpg
                      SegmentationClass/<key>.png     palette indices: 0, i+1, 255
                      Annotations/<key>.xml           a box for each class
                      ImageSets/{Segmentation,Main}/<split>.txt

Readers of VOC open `<key>.jpg` by that name, so the pictures have to be JPEGs. A photograph's own
bytes are kept; a generated picture, a PNG, is encoded at quality 95 with full colour resolution,
which changes it by a level or two. The label maps are exact.
"""

import io
import xml.etree.ElementTree as xml
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ml.exports.about import About
from ml.exports.origins import Origins
from ml.exports.pictures import JPEG, Picture
from ml.exports.writing import Writer
from ml.images.boxes import mask_box
from ml.images.overlays import PALETTE
from ml.images.png import decode_png

HOME = Path("VOCdevkit/VOC2012")
QUALITY = 95
READ = """\
from torchvision.datasets import VOCSegmentation

pictures = VOCSegmentation("{folder}", year="2012", image_set="{split}")  # (picture, label map)
"""


class FormatWriter(Writer):
    READ = READ
    LOSES = (
        "Pictures are JPEGs, as VOC's readers expect: of generated ones (PNG) each level changes "
        "a little. Label maps are exact.",
        "The files hold no class names: labelmap.txt lists them, in the order of their labels.",
    )

    def __init__(self, folder: Path, about: About, splits: tuple[str, ...]) -> None:
        self.home = folder / HOME
        for name in ("JPEGImages", "SegmentationClass", "Annotations"):
            (self.home / name).mkdir(parents=True)
        self.names = ("background", *about.classes)
        both = ["trainval"] if {"train", "val"} <= set(splits) else []
        self.lists = {
            (kind, name): _list_file(self.home, kind, name)
            for kind in ("Segmentation", "Main")
            for name in (*splits, *both)
        }
        self.origins = Origins(folder, about)
        lines = [
            f"{name}:{','.join(map(str, PALETTE[label]))}::\n"
            for label, name in enumerate(self.names)
        ]
        (folder / "labelmap.txt").write_text(
            "# label:color_rgb:parts:actions\n" + "".join(lines), encoding="utf-8"
        )
        self.differences: list[float] = [0.0, 0.0]  # of pixels' levels in sum, and their number

    def add(self, picture: Picture) -> None:
        key = picture.key
        (self.home / "JPEGImages" / f"{key}.jpg").write_bytes(self._jpeg(picture.data))
        label = Image.fromarray(picture.label)
        label.putpalette(PALETTE.tobytes())
        label.save(self.home / "SegmentationClass" / f"{key}.png")
        (self.home / "Annotations" / f"{key}.xml").write_bytes(annotation(picture, self.names))
        for (_, name), file in self.lists.items():
            if name == picture.split or (name == "trainval" and picture.split in ("train", "val")):
                file.write(f"{key}\n")
        self.origins.add(picture)

    def _jpeg(self, data: bytes) -> bytes:
        if data.startswith(JPEG):
            return data
        pixels, buffer = decode_png(data), io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
        levels = np.abs(decode_png(buffer.getvalue()).astype(np.int16) - pixels)
        self.differences = [
            self.differences[0] + int(levels.sum()),
            self.differences[1] + pixels.size,
        ]
        return buffer.getvalue()

    def finish(self) -> dict[str, Any]:
        for file in self.lists.values():
            file.close()
        self.origins.finish()
        total, count = self.differences
        return {"levels_changed": total / count} if count else {}


def _list_file(home: Path, kind: str, name: str) -> io.TextIOWrapper:
    path = home / "ImageSets" / kind / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w", encoding="utf-8")


def annotation(picture: Picture, names: tuple[str, ...]) -> bytes:
    """VOC's XML: a box for each class, corners counted from 1 and inclusive."""
    height, width = picture.label.shape
    tree = xml.Element("annotation")
    for name, text in (
        ("folder", HOME.name),
        ("filename", f"{picture.key}.jpg"),
        ("segmented", "1"),
    ):
        xml.SubElement(tree, name).text = text
    size = xml.SubElement(tree, "size")
    for name, number in (("width", width), ("height", height), ("depth", 3)):
        xml.SubElement(size, name).text = str(number)
    for label in picture.labels:
        left, top, right, bottom = mask_box(picture.mask(label))
        one = xml.SubElement(tree, "object")
        for name, text in (("name", names[label]), ("pose", "Unspecified"), ("truncated", "0")):
            xml.SubElement(one, name).text = text
        xml.SubElement(one, "difficult").text = "0"
        box = xml.SubElement(one, "bndbox")
        corners = {"xmin": left + 1, "ymin": top + 1, "xmax": right, "ymax": bottom}
        for name, number in corners.items():
            xml.SubElement(box, name).text = str(number)
    xml.indent(tree)
    data: bytes = xml.tostring(tree, encoding="utf-8")
    return data
