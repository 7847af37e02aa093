"""PASCAL VOC 2012 segmentation, with SBD's additional training masks (trainaug).

Test part: ImageSets/Segmentation/val.txt with SegmentationClass/*.png. Train part: trainaug, that
is SBD's train and val and VOC's train, less VOC's val. SBD's masks come as SegmentationClassAug/
*.png in the VOC folder, or as SBD itself was published: benchmark_RELEASE/dataset/cls/*.mat.
"""

from functools import cached_property
from pathlib import Path

import numpy as np

from ml.datasets.checks import require_labels
from ml.datasets.listing import is_junk
from ml.datasets.mat import read_struct_matrix
from ml.datasets.photos import PhotoFiles
from ml.datasets.split_lists import read_list
from ml.images.label_maps import open_mask
from ml.images.overlays import PALETTE

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
OFFICIAL = {"train": 1464, "val": 1449, "trainaug": 10_582}
"""Pictures of the published lists; SBD's are 8,498 + 2,857, of which some are VOC's val."""
SETS = "ImageSets/Segmentation"
TRAINAUG_LISTS = (f"{SETS}/trainaug.txt", f"{SETS}/train_aug.txt", "trainaug.txt", "train_aug.txt")
SBD_FOLDERS = ("benchmark_RELEASE/dataset", "sbd", "SBD")


class Voc2012(PhotoFiles):
    """A part of VOC 2012; see `protocol.LabelledPhotos` for what it offers."""

    names = dict(enumerate(CLASSES, start=1))
    label_hint = "Unpack the original masks"

    def __init__(self, root: Path, part: str):
        """root: the folder of VOCdevkit, VOCdevkit itself, or VOCdevkit/VOC2012."""
        self.root, self.part = Path(root), part
        self.folder = self._find_folder()
        self.sbd = self._find_sbd()
        self.aug = self.folder / "SegmentationClassAug"
        self.with_sbd = self.aug.is_dir() or self.sbd is not None
        self.title = "PASCAL VOC 2012 val"
        self.official = OFFICIAL["val"]
        self.hint = f"unpack VOCtrainval_11-May-2012.tar again over {self.folder}"
        if part == "train":
            self._name_the_training_part()

    def _name_the_training_part(self) -> None:
        self.title = f"PASCAL VOC 2012 {'trainaug' if self.with_sbd else 'train, without SBD'}"
        self.official = OFFICIAL["trainaug"]
        if not self.with_sbd:
            self.hint = (
                f"put SBD's masks beside it: {self.aug}/*.png, or SBD's own archive as "
                f"{self.folder.parent / SBD_FOLDERS[0]}/cls/*.mat"
            )

    def _find_folder(self) -> Path:
        for place in (".", "VOC2012", "VOCdevkit/VOC2012"):
            if (self.root / place / "JPEGImages").is_dir():
                return self.root / place
        seen = ", ".join(sorted(path.name for path in self.root.iterdir())[:8]) or "nothing"
        raise ValueError(
            f"{self.root} is not PASCAL VOC 2012: expected JPEGImages/, "
            f"SegmentationClass/ and {SETS}/ in it or in VOCdevkit/VOC2012 below it, "
            f"found {seen}. Set benchmark.root to the folder that holds VOCdevkit"
        )

    def _find_sbd(self) -> Path | None:
        places = [
            base / name
            for base in (self.root, self.folder, self.folder.parent, self.folder.parent.parent)
            for name in SBD_FOLDERS
        ]
        return next((place for place in places if (place / "cls").is_dir()), None)

    def _listed(self, name: str) -> list[str]:
        return read_list(self.folder / SETS / f"{name}.txt", "PASCAL VOC 2012")

    @cached_property
    def _own(self) -> set[str]:
        """Keys of VOC's train: their masks are VOC's own, with its border of 255."""
        return set(self._listed("train"))

    @cached_property
    def keys(self) -> tuple[str, ...]:
        if self.part == "test":
            return tuple(sorted(self._listed("val")))
        val = set(self._listed("val"))
        lists = [self.folder / name for name in TRAINAUG_LISTS]
        found = next((path for path in lists if path.is_file()), None)
        if found is None or not self.with_sbd:
            return tuple(sorted((self._own | self._sbd_keys()) - val))
        keys = read_list(found, self.title)
        if both := sorted(val & set(keys)):
            raise ValueError(
                f"{found} lists {len(both)} pictures of val, first {both[0]}: a "
                "segmenter trained on them would be tested on what it saw. Get "
                "trainaug's list (10,582 pictures), or remove the file: it is made "
                "out of SBD's and VOC's lists then"
            )
        return tuple(sorted(keys))

    def _sbd_keys(self) -> set[str]:
        published = self._published_sbd
        if published is None:
            return {path.stem for path in self.aug.glob("*.png") if not is_junk(path)}
        return {
            key
            for name in ("train.txt", "val.txt")
            for key in read_list(published / name, self.title)
        }

    @property
    def _published_sbd(self) -> Path | None:
        """SBD's own folder, where its masks do not lie in VOC's already."""
        return None if self.aug.is_dir() else self.sbd

    def photo(self, key: str) -> Path:
        return self.inside(self.folder / "JPEGImages" / f"{key}.jpg")

    def mask(self, key: str) -> Path:
        """The file of a picture's labels."""
        return self.inside(self._mask(key))

    def _mask(self, key: str) -> Path:
        if self.part == "test" or key in self._own:
            return self.folder / "SegmentationClass" / f"{key}.png"
        if self._published_sbd is not None:
            return self._published_sbd / "cls" / f"{key}.mat"
        return self.aug / f"{key}.png"

    def truth(self, key: str) -> np.ndarray:
        path = self.mask(key)
        if path.suffix == ".mat":
            labels = read_mat(path)
        elif path.parent == self.aug:
            labels = open_mask(path).labels()
        else:
            labels = read_palette(path)
        return require_labels(path, labels, self.names)

    def label_files(self) -> list[Path]:
        return [self.mask(key) for key in self.keys]


def read_palette(path: Path) -> np.ndarray:
    """Label map uint8 (H,W) of a palette PNG in VOC's colours."""
    image = open_mask(path).image
    if image.mode != "P":
        raise ValueError(
            f"{path}: expected a palette PNG (mode P) as VOC publishes them, got mode "
            f"{image.mode}: a tool has rewritten it, so labels cannot be told from "
            "colours; unpack the original"
        )
    labels = np.array(image)
    used = np.unique(labels)
    colours = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if used.max() >= len(colours) or not np.array_equal(colours[used], PALETTE[used]):
        wrong = next(
            int(i) for i in used if i >= len(colours) or not np.array_equal(colours[i], PALETTE[i])
        )
        got = colours[wrong].tolist() if wrong < len(colours) else "no colour"
        raise ValueError(
            f"{path}: expected VOC's palette, where label {wrong} is "
            f"{PALETTE[wrong].tolist()}, got {got}: the labels may have been "
            "renumbered; unpack the original"
        )
    return labels


def read_mat(path: Path) -> np.ndarray:
    """Label map of SBD's GTcls.Segmentation."""
    try:
        return read_struct_matrix(path.read_bytes(), "GTcls", "Segmentation")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path}: expected SBD's struct GTcls with the field Segmentation "
            f"({error}); unpack SBD's benchmark.tgz again"
        ) from error
