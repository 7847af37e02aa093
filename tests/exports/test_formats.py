"""Each format by its own reader: the labels come back pixel by pixel where it can hold them."""

import csv
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import supervision
import webdataset
import yaml
from faster_coco_eval import COCO as FasterCOCO
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import VOCDetection, VOCSegmentation

from ml.datasets.coco_annotations import read_annotations
from ml.exports import FORMATS
from ml.images.png import decode_png
from tests.builders import exported
from tests.builders.exported import CLASSES

SPLITS = ("train", "val")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, tuple[Path, dict]]:
    """Format -> (the export, its facts)."""
    home = tmp_path_factory.mktemp("exports")
    shards = exported.write_set(home / "shards")
    return {kind: (home / kind, exported.export(home / kind, kind, shards)) for kind in FORMATS}


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    return exported.truth()


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    frame = exported.rows()
    return {key: decode_png(data) for key, data in zip(frame.key, frame.image, strict=True)}


@pytest.mark.parametrize("reader", [COCO, FasterCOCO])
def test_coco(made, truth, pictures, reader):
    folder, facts = made["coco"]
    seen = {}
    for split in SPLITS:
        coco = reader(str(folder / "annotations" / f"instances_{split}.json"))
        assert {c["id"]: c["name"] for c in coco.loadCats(coco.getCatIds())} == dict(
            enumerate(CLASSES, start=1)
        )
        for image in coco.loadImgs(coco.getImgIds()):
            found = np.zeros((image["height"], image["width"]), np.uint8)
            for one in coco.loadAnns(coco.getAnnIds(image["id"])):
                mask = coco.annToMask(one) > 0
                found[mask] = one["category_id"]
                y, x = np.nonzero(mask)
                assert one["area"] == mask.sum() and not one["iscrowd"]
                assert one["bbox"] == [
                    x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1
                ]  # fmt: skip
            if "ignored" in image:
                found[
                    coco.annToMask({"segmentation": image["ignored"], "image_id": image["id"]}) > 0
                ] = 255
            file = folder / split / image["file_name"]
            seen[file.stem] = found
            assert np.array_equal(np.asarray(Image.open(file)), pictures[file.stem])
    assert seen.keys() == truth.keys()
    assert all(np.array_equal(seen[key], truth[key]) for key in truth)
    assert facts["measured"]["objects"] == sum(
        len(set(np.unique(label)) - {0, 255}) for label in truth.values()
    )


def test_coco_has_what_it_comes_from(made):
    folder, _ = made["coco"]
    file = folder / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    assert content["info"]["description"].startswith(exported.ABOUT.name)
    assert content["licenses"][0]["name"] == "CC0 (a/b)"
    ids = [one["id"] for one in content["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    number = int(Path(content["images"][0]["file_name"]).stem[-3:])
    assert content["images"][0]["seed"] == 2**32 - 1 - number
    assert content["images"][0]["prompt"].startswith(f'a "photograph", {number};')
    read_annotations(file, dict(enumerate(CLASSES, start=1)))  # our own reader takes it, too


def test_voc(made, truth, pictures):
    folder, facts = made["voc"]
    seen = {}
    for split in (*SPLITS, "trainval"):
        read = VOCSegmentation(folder, year="2012", image_set=split)
        for (picture, label), file in zip(read, read.masks, strict=True):
            key = Path(file).stem
            seen[key] = np.asarray(label)
            assert label.mode == "P"
            change = np.abs(np.asarray(picture).astype(int) - pictures[key])
            assert change.mean() < 3
        counts = facts["pictures"]
        assert len(read) == (counts[split] if split in counts else sum(counts.values()))
    assert seen.keys() == truth.keys()
    assert all(np.array_equal(seen[key], truth[key]) for key in truth)
    assert 0 < facts["measured"]["levels_changed"] < 3
    palette = np.reshape(Image.open(read.masks[0]).getpalette(), (-1, 3)).tolist()
    assert palette[:3] == [[0, 0, 0], [128, 0, 0], [0, 128, 0]]  # of the development kit
    assert palette[255] == [224, 224, 192]


def test_a_photographs_jpeg_is_kept_byte_for_byte(made):
    folder, _ = made["voc"]
    frame = exported.rows().set_index("key")
    file = folder / "VOCdevkit/VOC2012/JPEGImages/picture-006.jpg"
    assert file.read_bytes() == frame.image["picture-006"]


def test_voc_boxes(made, truth):
    folder, _ = made["voc"]
    read = VOCDetection(folder, year="2012", image_set="trainval")
    for file, (picture, target) in zip(read.annotations, read, strict=True):
        label, own = truth[Path(file).stem], target["annotation"]
        assert (int(own["size"]["width"]), int(own["size"]["height"])) == picture.size
        boxes = {}
        for one in own.get("object", []):
            corners = [int(one["bndbox"][name]) for name in ("xmin", "ymin", "xmax", "ymax")]
            boxes[one["name"]] = corners
        for value in set(np.unique(label)) - {0, 255}:
            y, x = np.nonzero(label == value)
            expected = [x.min() + 1, y.min() + 1, x.max() + 1, y.max() + 1]
            assert boxes.pop(CLASSES[value - 1]) == expected
        assert not boxes


def test_voc_by_supervision(made, truth):
    home = made["voc"][0] / "VOCdevkit/VOC2012"
    read = supervision.DetectionDataset.from_pascal_voc(
        str(home / "JPEGImages"), str(home / "Annotations")
    )
    assert len(read) == len(truth) and set(read.classes) <= set(CLASSES)
    lines = (made["voc"][0] / "labelmap.txt").read_text().splitlines()[1:]
    assert [line.rsplit(":", 3)[0] for line in lines] == ["background", *CLASSES]


def test_yolo(made, truth):
    folder, facts = made["yolo-seg"]
    overlaps = []
    for split in SPLITS:
        read = supervision.DetectionDataset.from_yolo(
            str(folder / "images" / split),
            str(folder / "labels" / split),
            str(folder / "data.yaml"),
            force_masks=True,
        )
        assert read.classes == list(CLASSES)
        for path, _, found in read:
            label = truth[Path(path).stem]
            values = [int(value) for value in np.unique(label) if value not in (0, 255)]
            named = [] if found.class_id is None else found.class_id.tolist()
            assert named == [value - 1 for value in values]
            for value, mask in zip(values, found.mask if values else [], strict=True):
                own = label == value
                overlaps.append((mask & own).sum() / (mask | own).sum())
    measured = facts["measured"]
    assert len(overlaps) == measured["objects"]
    assert np.mean(overlaps) == pytest.approx(measured["polygon_iou_mean"])
    assert min(overlaps) == pytest.approx(measured["polygon_iou_least"])
    assert sorted(overlaps)[1:] == [1.0] * (len(overlaps) - 1)  # all but the one of three parts
    data = yaml.safe_load((folder / "data.yaml").read_text())
    assert data["names"] == dict(enumerate(CLASSES))


def test_hugging_face(made, truth, pictures, tmp_path):
    folder, _ = made["hf"]
    read = datasets.load_dataset(str(folder), cache_dir=str(tmp_path))
    assert list(read) == list(SPLITS)
    features = read["train"].features
    assert features["classes"].feature.names == ["background", *CLASSES]
    assert isinstance(features["image"], datasets.Image)
    seen = {}
    for row in (row for split in SPLITS for row in read[split]):
        seen[row["key"]] = np.asarray(row["label"])
        assert np.array_equal(np.asarray(row["image"]), pictures[row["key"]])
        assert row["classes"] == sorted(set(seen[row["key"]].ravel().tolist()) - {0, 255})
        assert row["seed"] == 2**32 - 1 - int(row["key"][-3:]) and row["prompt"].startswith('a "')
    assert seen.keys() == truth.keys()
    assert all(np.array_equal(seen[key], truth[key]) for key in truth)


def test_webdataset(made, truth, pictures):
    folder, facts = made["webdataset"]
    seen = {}
    for split in SPLITS:
        tars = sorted(str(path) for path in folder.glob(f"{split}-*.tar"))
        samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("rgb8"))
        assert len(samples) == facts["pictures"][split]
        for sample in samples:
            key = sample["__key__"]
            picture = sample["png"] if "png" in sample else sample["jpg"]
            assert np.array_equal(picture, pictures[key])
            seen[key] = sample["label.png"][..., 0]
            words = {int(label): name for label, name in sample["json"]["classes"].items()}
            assert words == {v: CLASSES[v - 1] for v in np.unique(seen[key]) if v not in (0, 255)}
            assert sample["json"]["seed"] == 2**32 - 1 - int(key[-3:])
    assert seen.keys() == truth.keys()
    assert all(np.array_equal(seen[key], truth[key]) for key in truth)


@pytest.mark.parametrize("kind", ["voc", "yolo-seg"])
def test_where_a_picture_comes_from(made, kind):
    folder, _ = made[kind]
    with (folder / "pictures.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    frame = exported.rows().set_index("key")
    for key, row in rows.items():
        assert row["prompt"] == frame.text[key] and int(row["seed"]) == frame.seed[key]


@pytest.mark.parametrize("kind", FORMATS)
def test_equal_sets_give_equal_files(made, kind, tmp_path):
    folder, _ = made[kind]
    exported.export(tmp_path / "again", kind, exported.write_set(tmp_path / "shards", size=3))
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for file in files:
        if file.name not in (".files.txt", "export.json"):
            assert (folder / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


@pytest.mark.parametrize("kind", FORMATS)
def test_every_heading_of_the_card_has_its_own_text_below(made, kind):
    parts = (made[kind][0] / "README.md").read_text().split("\n\n")
    headings = [place for place, part in enumerate(parts) if part.startswith("## ")]
    assert headings and not {place + 1 for place in headings} & {*headings, len(parts)}
    below = {parts[place]: parts[place + 1] for place in headings}
    assert "| objects |" not in below["## How it was made"]
    assert ("## This export" in below) == bool(made[kind][1]["measured"])
