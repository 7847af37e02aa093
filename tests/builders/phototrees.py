"""Tiny trees in the exact layouts of PASCAL VOC 2012, SBD, COCO 2017 and a user's own folder.

Photographs are noise of odd sizes; label maps are rectangles drawn by hand, so that a test knows
the truth without asking a reader.
"""

import json
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image

from ml.datasets.coco import CATEGORIES

# VOC's colour map as the devkit prints it, not computed: label -> RGB
VOC_COLOURS = {
    0: (0, 0, 0),
    7: (128, 128, 128),
    8: (64, 0, 0),
    12: (64, 0, 128),
    15: (192, 128, 128),
    255: (224, 224, 192),
}
CAR, CAT, DOG, PERSON = 7, 8, 12, 15  # VOC's labels


def noise(height: int, width: int, seed: int) -> np.ndarray:
    """uint8 (height,width,3): blocks of colour, so that JPEG and thumbnails keep them apart."""
    rng = np.random.default_rng(seed)
    blocks = Image.fromarray(rng.integers(0, 256, (5, 6, 3), np.uint8))
    return np.asarray(blocks.resize((width, height), Image.Resampling.BICUBIC))


def save_photo(path: Path, height: int, width: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(height, width, seed)).save(path, quality=95)


def boxes(height: int, width: int, *parts: tuple[int, int, int, int, int]) -> np.ndarray:
    """Label map uint8: (label, top, left, bottom, right), later ones on top."""
    label = np.zeros((height, width), np.uint8)
    for value, top, left, bottom, right in parts:
        label[top:bottom, left:right] = value
    return label


def save_palette(path: Path, label: np.ndarray, colours: dict = VOC_COLOURS) -> None:
    """A palette PNG as VOC's are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(label, mode="P")
    palette = np.zeros((256, 3), np.uint8)
    for value, colour in colours.items():
        palette[value] = colour
    image.putpalette(palette.ravel().tolist())
    image.save(path)


VOC_VAL = {
    "2007_000033": boxes(40, 60, (255, 4, 4, 26, 31), (CAT, 5, 5, 25, 30)),
    "2007_000042": boxes(60, 40, (DOG, 10, 10, 40, 30)),
    "2007_000061": boxes(40, 60, (CAR, 20, 10, 38, 50), (PERSON, 0, 0, 10, 10)),
}
VOC_TRAIN = {
    "2007_000032": boxes(40, 60, (CAR, 5, 5, 25, 30)),
    "2007_000039": boxes(60, 40, (CAT, 5, 5, 25, 30), (255, 30, 5, 40, 30)),
}
SBD_TRAIN = {
    "2008_000002": boxes(50, 40, (DOG, 5, 5, 45, 30)),
    "2007_000032": boxes(40, 60, (DOG, 0, 0, 40, 60)),
}  # VOC's own mask is the better one
SBD_VAL = {
    "2008_000003": boxes(30, 70, (CAR, 5, 5, 25, 60)),
    "2007_000033": boxes(40, 60, (CAR, 0, 0, 40, 60)),
}  # a picture of VOC's val


def write_list(path: Path, keys) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{key}\n" for key in keys))


def write_voc(root: Path) -> Path:
    """VOCdevkit/VOC2012 below the root; returns its folder."""
    folder = root / "VOCdevkit" / "VOC2012"
    own = VOC_VAL | VOC_TRAIN
    for seed, (key, label) in enumerate((own | SBD_TRAIN | SBD_VAL | own).items()):
        save_photo(folder / "JPEGImages" / f"{key}.jpg", *label.shape, seed)
    for key, label in own.items():
        save_palette(folder / "SegmentationClass" / f"{key}.png", label)
    sets = folder / "ImageSets" / "Segmentation"
    write_list(sets / "train.txt", VOC_TRAIN)
    write_list(sets / "val.txt", VOC_VAL)
    write_list(sets / "trainval.txt", own)
    return folder


def write_sbd(parent: Path) -> None:
    """SBD as published: benchmark_RELEASE/dataset with cls/*.mat, train.txt, val.txt."""
    dataset = parent / "benchmark_RELEASE" / "dataset"
    (dataset / "cls").mkdir(parents=True)
    for key, label in (SBD_TRAIN | SBD_VAL).items():
        scipy.io.savemat(
            dataset / "cls" / f"{key}.mat",
            {
                "GTcls": {
                    "Boundaries": np.zeros((20, 1), object),
                    "Segmentation": label,
                    "CategoriesPresent": np.unique(label[label > 0]),
                }
            },
        )
    write_list(dataset / "train.txt", SBD_TRAIN)
    write_list(dataset / "val.txt", SBD_VAL)


def write_aug(folder: Path, listed: bool) -> None:
    """SegmentationClassAug as usually unpacked: grey PNGs of every picture, val's too."""
    aug = folder / "SegmentationClassAug"
    aug.mkdir()
    for key, label in (SBD_VAL | SBD_TRAIN).items():
        Image.fromarray(label).save(aug / f"{key}.png")
    if listed:
        path = folder / "ImageSets" / "Segmentation" / "trainaug.txt"
        write_list(
            path,
            [
                f"/JPEGImages/{key}.jpg /SegmentationClassAug/{key}.png"
                for key in ("2007_000032", "2007_000039", "2008_000002")
            ],
        )


def rectangle(top: int, left: int, bottom: int, right: int) -> list[list[float]]:
    """COCO's polygon of a box in whole pixels."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask: np.ndarray) -> dict:
    """COCO's uncompressed run lengths: column by column, zeros first."""
    flat, counts, value = mask.astype(np.uint8).ravel(order="F"), [], 0
    place = 0
    while place < len(flat):
        length = 0
        while place < len(flat) and flat[place] == value:
            length, place = length + 1, place + 1
        counts.append(length)
        value = 1 - value
    return {"size": list(mask.shape), "counts": counts}


def annotation(number: int, image: int, category: int, segmentation, crowd: int = 0) -> dict:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "iscrowd": crowd,
        "segmentation": segmentation,
        "area": 1.0,
        "bbox": [0, 0, 1, 1],
    }


COCO_IDS = {"person": 1, "car": 3, "cat": 17, "dog": 18, "zebra": 24}


def coco_annotations() -> dict:
    """Three pictures: overlapping objects and a crowd, a class of no interest, and nothing."""
    crowd = boxes(40, 60, (1, 0, 0, 12, 60)).astype(bool)
    ids = COCO_IDS
    return {
        "info": {},
        "licenses": [],
        "images": [
            {"id": 139, "file_name": "000000000139.jpg", "height": 40, "width": 60},
            {"id": 285, "file_name": "000000000285.jpg", "height": 60, "width": 40},
            {"id": 632, "file_name": "000000000632.jpg", "height": 33, "width": 47},
        ],
        "categories": [
            {"id": i, "name": name, "supercategory": ""} for i, name in CATEGORIES.items()
        ],
        "annotations": [
            annotation(1, 139, ids["cat"], rectangle(10, 10, 20, 20)),  # smaller: on top
            annotation(2, 139, ids["car"], rectangle(5, 5, 35, 40)),
            annotation(3, 139, ids["person"], runs(crowd), crowd=1),  # lowest
            annotation(4, 285, ids["dog"], rectangle(10, 10, 50, 30)),
            annotation(5, 285, ids["zebra"], rectangle(0, 0, 5, 5)),
        ],
    }


# What the annotations above mean, by hand, in COCO's labels.
COCO_TRUTH = {
    "000000000139": boxes(40, 60, (255, 0, 0, 12, 60), (3, 5, 5, 35, 40), (17, 10, 10, 20, 20)),
    "000000000285": boxes(60, 40, (18, 10, 10, 50, 30), (24, 0, 0, 5, 5)),
    "000000000632": boxes(33, 47),
}


def write_coco(root: Path, *, split: str = "val2017", images: str = "images/") -> dict:
    """annotations/instances_<split>.json and its pictures; returns the annotations."""
    values = coco_annotations()
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(values))
    first = 0 if split == "val2017" else 100
    for seed, image in enumerate(values["images"], start=first):
        save_photo(
            root / f"{images}{split}" / image["file_name"], image["height"], image["width"], seed
        )
    return values


OWN_TRUTH = {
    "hall 1": boxes(40, 60, (1, 5, 5, 30, 30), (255, 30, 5, 38, 30)),
    "hall 2": boxes(60, 40, (2, 10, 10, 40, 30)),
    "hall 3": boxes(48, 48, (1, 0, 0, 20, 48), (2, 20, 0, 40, 48)),
}
OWN_CLASSES = ("forklift", "hard hat")


def write_folder(root: Path) -> Path:
    """images/, masks/ (grey PNGs) and classes.txt."""
    (root / "masks").mkdir(parents=True)
    for seed, (key, label) in enumerate(OWN_TRUTH.items(), start=50):
        save_photo(root / "images" / f"{key}.jpg", *label.shape, seed)
        Image.fromarray(label).save(root / "masks" / f"{key}.png")
    write_list(root / "classes.txt", OWN_CLASSES)
    return root
