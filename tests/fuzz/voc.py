"""VOC's trees and SBD's MATLAB files, as half downloads, other tools and hands leave them."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.builders import phototrees as trees
from tests.fuzz.harness import Case
from tests.fuzz.parts import benchmark_of, labels


def cases(rng: random.Random) -> list[Case]:
    return [_voc(name, edit, sound, *names) for name, (edit, sound, *names) in VOC.items()]


def _voc(name: str, edit: Callable[[Path], object], sound: bool, *names: str) -> Case:
    def prepare(folder: Path) -> list[str]:
        edit(trees.write_voc(folder / "voc"))
        return benchmark_of(folder, "voc2012", "voc", ["car", "cat", "dog", "person"])

    def check(folder: Path, _) -> str | None:
        table = np.arange(256, dtype=np.uint8)
        table[[7, 8, 12, 15]] = 2, 3, 4, 5
        made = labels(folder)
        return next(
            (
                f"{key} has other labels"
                for key, label in trees.VOC_VAL.items()
                if not np.array_equal(made[key], table[label])
            ),
            None,
        )

    return Case("published", f"VOC {name}", sound, prepare, names=names, check=check)


MASK, LIST = "SegmentationClass/2007_000033.png", "ImageSets/Segmentation/val.txt"


def _as(mode: str) -> Callable[[Path], object]:
    def edit(root: Path) -> None:
        Image.open(root / MASK).convert(mode).save(root / MASK)

    return edit


def _bytes(name: str, data: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda root: (root / name).write_bytes(data((root / name).read_bytes()))


def _recoloured(root: Path) -> None:
    trees.save_palette(root / MASK, trees.VOC_VAL["2007_000033"], {8: (1, 2, 3)})


VOC: dict[str, tuple] = {
    "plain": (lambda root: None, True),
    "with returns": (_bytes(LIST, lambda data: data.replace(b"\n", b"\r\n")), True),
    "with a mark": (_bytes(LIST, lambda data: b"\xef\xbb\xbf" + data), True),
    "from macOS": (lambda root: (root / "JPEGImages/._2007_000033.jpg").write_bytes(b"x"), True),
    "with colours for labels": (_as("RGB"), False, "2007_000033"),
    "with greys for labels": (_as("L"), False, "2007_000033"),
    "recoloured": (_recoloured, False, "2007_000033"),
    "cut": (_bytes(MASK, lambda data: data[:150]), False, "2007_000033"),
    "empty": (_bytes(MASK, lambda data: b""), False, "2007_000033"),
    "a mask less": (lambda root: (root / MASK).unlink(), False, "2007_000033"),
    "a picture less": (
        lambda root: (root / "JPEGImages/2007_000042.jpg").unlink(),
        False,
        "2007_000042",
    ),
    "a picture cut": (
        _bytes("JPEGImages/2007_000042.jpg", lambda data: data[:200]),
        False,
        "2007_000042",
    ),
    "no list": (lambda root: (root / LIST).unlink(), False, "val.txt"),
    "an empty list": (_bytes(LIST, lambda data: b"\n"), False, "val.txt"),
    "a list of bytes": (_bytes(LIST, lambda data: b"\xff\xfe"), False, "val.txt"),
    "a list with a way out": (_bytes(LIST, lambda data: b"../../x\n"), False, "x"),
    "a list twice over": (_bytes(LIST, lambda data: data * 2), False, "val.txt"),
    "a list of others": (_bytes(LIST, lambda data: data + b"2009_000001\n"), False, "2009_000001"),
    "another folder": (lambda root: root.rename(root.with_name("VOC2013")), False, "VOC"),
    "no pictures": (lambda root: shutil.rmtree(root / "JPEGImages"), False, "JPEGImages"),
    "no masks": (
        lambda root: shutil.rmtree(root / "SegmentationClass"),
        False,
        "SegmentationClass",
    ),
}
