"""A user's own pictures in each layout, written by the format's own library: the exact masks of
drawn scenes come back, and what does not fit is refused."""

import gzip
import json
import re
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from ml.cli.own_words.labels import open_folder
from ml.cli.teaching.pictures import open_pictures
from ml.datasets import open_source
from ml.datasets.own import LAYOUTS, layout_of, open_own
from ml.datasets.own_yolo import draw_polygon
from ml.datasets.protocol import NoSuchPart
from ml.images.png import decode_png, encode_png
from ml.pipeline.labelled import open_labels
from ml.pipeline.runner import run_stage
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from ml.store.shards import read_shards
from ml.words.vocabulary import load_vocabulary
from tests.builders.damage import flipped, spoil
from tests.builders.own_pictures import label_map, scenes_of, write_folder
from tests.builders.phototrees import save_palette

CLASSES = ("cat", "bottle", "bird")
VOC = load_vocabulary("voc-1")
BORDER = 255


@pytest.fixture(scope="module")
def scenes():
    return scenes_of(["cat"], ["bird"], ["cat", "bottle"], ["bird", "cat"])


@pytest.fixture(scope="module")
def truth(scenes):
    """Label maps in the order of CLASSES; the first row of the first is uncertain."""
    labels = [label_map(scene, CLASSES) for scene in scenes]
    labels[0][0] = BORDER
    return labels


def write_voc(root, scenes, truth, split="train", colours=None):
    """As CVAT and `python -m ml export` write it."""
    home = root / "VOCdevkit" / "VOC2012"
    colours = colours or {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0)}
    (home / "JPEGImages").mkdir(parents=True)
    for i, (scene, label) in enumerate(zip(scenes, truth, strict=True)):
        Image.fromarray(scene.image).save(home / "JPEGImages" / f"{i:02d}.png")
        whole = colours | {BORDER: (224, 224, 192)}
        save_palette(home / "SegmentationClass" / f"{i:02d}.png", label, whole)
    lists = home / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / f"{split}.txt").write_text("".join(f"{i:02d}\n" for i in range(len(scenes))))
    names = ("background", *CLASSES)
    (root / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\n"
        + "".join(f"{n}:{','.join(map(str, colours[i]))}::\n" for i, n in enumerate(names))
    )


def write_coco(root, scenes, truth, split="train"):
    """By pycocotools' run lengths, with ids that leave gaps."""
    ids = {1: 7, 2: 3, 3: 90}  # the labels are not the ids, nor in their order
    values = {"info": {}, "images": [], "annotations": []}
    values["categories"] = [{"id": ids[i], "name": n} for i, n in enumerate(CLASSES, start=1)]
    (root / split).mkdir(parents=True)
    for i, (scene, label) in enumerate(zip(scenes, truth, strict=True)):
        Image.fromarray(scene.image).save(root / split / f"{i:02d}.png")
        image = {"id": i + 5, "file_name": f"{i:02d}.png", "height": 64, "width": 64}
        for value in np.unique(label):
            found = coco_mask.encode(np.asfortranarray(label == value, dtype=np.uint8))
            runs = {"size": found["size"], "counts": found["counts"].decode()}
            if value == BORDER:
                image["ignored"] = runs
            elif value:
                number = len(values["annotations"])
                own = {"id": number, "image_id": i + 5, "category_id": ids[value], "iscrowd": 0}
                values["annotations"].append(own | {"segmentation": runs})
        values["images"].append(image)
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(values))


def write_hub(root, scenes, truth, split="train"):
    """By `datasets`."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.Image(),
            "classes": datasets.List(datasets.ClassLabel(names=["background", *CLASSES])),
        }
    )
    rows = [
        {
            "image": Image.fromarray(scene.image),
            "label": Image.fromarray(label),
            "classes": sorted(set(np.unique(label).tolist()) - {0, BORDER}),
        }
        for scene, label in zip(scenes, truth, strict=True)
    ]
    (root / "data").mkdir(parents=True)
    made = datasets.Dataset.from_list(rows, features=features)
    made.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet", batch_size=3)


def write_shards(root, scenes, truth, split="train"):
    """By webdataset."""
    webdataset = pytest.importorskip("webdataset")
    root.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(root / f"{split}-000000.tar"), encoder=False) as tar:
        for i, (scene, label) in enumerate(zip(scenes, truth, strict=True)):
            shown = set(np.unique(label).tolist()) - {0, BORDER}
            about = {"classes": {str(v): CLASSES[v - 1] for v in shown}}
            parts = {"png": encode_png(scene.image), "label.png": encode_png(label)}
            tar.write({"__key__": f"{i:02d}", "json": json.dumps(about).encode()} | parts)


def write_plain(root, scenes, truth, split="train"):
    write_folder(root, scenes, CLASSES, labels=truth)


WRITERS = {
    "folder": write_plain,
    "voc": write_voc,
    "coco": write_coco,
    "hf": write_hub,
    "webdataset": write_shards,
}


@pytest.mark.parametrize("layout", WRITERS)
def test_pictures_and_masks_come_back_to_the_pixel(layout, tmp_path, scenes, truth):
    WRITERS[layout](tmp_path / "own", scenes, truth)
    assert layout_of(tmp_path / "own") == layout
    photos = open_own(tmp_path / "own", "labels")
    assert isinstance(photos, LAYOUTS[layout])
    photos.check(photos.keys, "any", VOC)
    read = list(photos.read(photos.keys, VOC))
    assert len(read) == len(scenes)
    number = np.array([0, *(VOC.label(name) for name in CLASSES)] + [255] * 252, np.uint8)
    for sample, scene, label in zip(read, scenes, truth, strict=True):
        assert np.array_equal(sample.image, scene.image)
        assert np.array_equal(sample.label, number[label])
        assert set(sample.entities) == set(scene.classes)
    digest = photos.digest()
    assert open_own(tmp_path / "own", "labels").digest() == digest
    assert all(path.is_file() for path in [*photos.photo_files(), *photos.label_files()])


@pytest.mark.parametrize("layout", [name for name in WRITERS if name != "folder"])
def test_labels_are_of_the_training_part_alone(layout, tmp_path, scenes, truth):
    write = WRITERS[layout]
    write(tmp_path / "val", scenes[:1], truth[:1], "val")
    with pytest.raises(ValueError, match=r"nothing in it may be learned from.*found val"):
        _ = open_own(tmp_path / "val", "labels").keys
    assert len(open_own(tmp_path / "val", "test").keys) == 1
    with pytest.raises(NoSuchPart, match="no training part"):
        _ = open_own(tmp_path / "val", "train").keys
    if layout in ("coco", "hf", "webdataset"):  # a file of its own for each part
        write(tmp_path / "both" / "a", scenes[:1], truth[:1], "val")
        write(tmp_path / "both" / "b", scenes[1:], truth[1:], "train")
        shutil.copytree(tmp_path / "both" / "a", tmp_path / "both" / "b", dirs_exist_ok=True)
        assert len(open_own(tmp_path / "both" / "b", "labels").keys) == 3
        assert len(open_own(tmp_path / "both" / "b", "test").keys) == 1


def as_detections(supervision, label):
    values = sorted(set(np.unique(label).tolist()) - {0, BORDER})
    masks = np.array([label == value for value in values])
    boxes = supervision.mask_to_xyxy(masks)
    return supervision.Detections(boxes, mask=masks, class_id=np.array(values) - 1)


@pytest.mark.parametrize("layout", ["yolo-seg", "coco"])
def test_supervisions_polygons_come_back_nearly(layout, tmp_path, scenes, truth):
    """Its writers turn masks into polygons: COCO's are as pycocotools draws them, YOLO's lose
    what polygons of so small pictures lose."""
    supervision = pytest.importorskip("supervision")
    names = {f"{tmp_path}/{i:02d}.png": i for i in range(len(scenes))}
    made = supervision.DetectionDataset(
        list(CLASSES),
        {name: scenes[i].image[..., ::-1] for name, i in names.items()},  # BGR
        {name: as_detections(supervision, truth[i]) for name, i in names.items()},
    )
    root = tmp_path / "own"
    if layout == "yolo-seg":
        made.as_yolo(
            images_directory_path=str(root / "images"),
            annotations_directory_path=str(root / "labels"),
            data_yaml_path=str(root / "data.yaml"),
        )
        values = yaml.safe_load((root / "data.yaml").read_text())
        (root / "data.yaml").write_text(yaml.safe_dump(values | {"train": "images"}))
    else:
        made.as_coco(
            images_directory_path=str(root / "images"),
            annotations_path=str(root / "annotations.json"),
        )
    assert layout_of(root) == layout
    photos = open_own(root, "labels")
    photos.check(photos.keys, "any", VOC)
    for key, scene, label in zip(photos.keys, scenes, truth, strict=True):
        assert np.array_equal(photos.picture(key)[1], scene.image)
        got = photos.truth(key)
        assert set(np.unique(got)) == set(np.unique(label)) - {BORDER}
        for value in set(np.unique(got).tolist()) - {0}:
            a, b = got == value, label == value
            assert (a & b).sum() / (a | b).sum() > (0.85 if layout == "yolo-seg" else 0.7)
    if layout == "coco":
        coco = COCO(str(root / "annotations.json"))
        for key in photos.keys:
            want = np.zeros((64, 64), np.uint8)
            masks = map(coco.annToMask, coco.imgToAnns[int(key)])
            for mask in masks:
                want[mask > 0] = 1
            assert np.array_equal(photos.truth(key) > 0, want > 0)


def test_a_polygon_is_drawn_as_ultralytics_draws_it(tmp_path, scenes):
    """As supervision fills corners cut off to whole pixels, which is OpenCV's fillPoly."""
    supervision = pytest.importorskip("supervision")
    rng = np.random.default_rng(3)
    for _ in range(50):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        corners = 0.5 + 0.45 * rng.uniform(0.4, 1, (9, 1)) * np.c_[np.cos(angles), np.sin(angles)]
        points = (corners * (120, 90)).astype(np.int32)
        want = supervision.polygon_to_mask(points, (120, 90))
        got = draw_polygon(corners, (90, 120))
        assert (got ^ (want > 0)).sum() <= 0.05 * want.sum()  # of the outline


def test_a_folder_in_two_layouts_is_refused_until_one_is_named(tmp_path, scenes, truth):
    write_coco(tmp_path / "own", scenes, truth)
    write_shards(tmp_path / "own", scenes, truth)
    root, params, workspace = str(tmp_path / "own"), load_params("ci"), Workspace(tmp_path, "ci")

    def labels(layout):
        own = replace(params.triplets, labels=root, labels_format=layout)
        return open_labels(replace(params, triplets=own), workspace)

    twice = "as coco or as webdataset; expected one of them"
    with pytest.raises(ValueError, match=rf"{twice}. Name the one .* triplets\.labels_format, or"):
        labels("auto")
    assert len(labels("coco").keys) == len(scenes)
    benchmark = replace(params.benchmark, source="folder", root=root)
    for without_setting in (
        lambda: open_own(tmp_path / "own", "labels"),
        lambda: open_source(benchmark, "test", root),
        lambda: open_folder(root),  # of `init`
        lambda: open_pictures(root, None, None),  # of `teach`
    ):
        with pytest.raises(ValueError, match=rf"{twice}. Keep them in folders of their own$"):
            without_setting()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images/ in it.*VOC, COCO, YOLO"):
        open_own(tmp_path / "empty", "labels")


def yolo(root, line, names="[cat, bird]"):
    for name in ("images", "labels"):
        (root / name / "train").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(root / "images" / "train" / "x.png")
    (root / "labels" / "train" / "x.txt").write_text(line)
    (root / "data.yaml").write_text(f"names: {names}\ntrain: images/train\n")
    return open_own(root, "labels")


FAULTS = {
    "0 0.5 0.5 0.2 0.2": "is a box; expected a polygon",
    "0 0.1 0.1 0.5 0.1 0.5": "expected pairs x y, three or more",
    "0 10 10 50 10 50 30": "numbers from 10 to 50; expected shares",
    "2 0.1 0.1 0.5 0.1 0.5 0.5": "class 2; expected one of data.yaml's",
    "0 0.1 0.1 0.5 0.1 0.5 nan": "expected shares",
    "0 0.1 0.1 0.5 0.1 0.5 inf": "expected shares",
    "inf 0.1 0.1 0.5 0.1 0.5 0.5": "class inf; expected one of data.yaml's {0: 'cat', 1: 'bird'}",
    "nan 0.1 0.1 0.5 0.1 0.5 0.5": "class nan; expected one of",
    "0.7 0.1 0.1 0.5 0.1 0.5 0.5": "class 0.7; expected one of",  # not class 0
    "cat 0.1 0.1 0.5 0.1 0.5 0.5": "is no list of numbers",
}


@pytest.mark.parametrize("line", FAULTS)
def test_lines_of_yolo_that_hold_no_polygon_are_refused_with_their_place(line, tmp_path):
    photos = yolo(tmp_path / "own", line)
    with pytest.raises(ValueError, match=rf"x\.txt, line 1: .*{re.escape(FAULTS[line])}"):
        photos.truth(photos.keys[0])


def test_yolo_paths_of_another_machine_are_looked_for_below_the_folder(tmp_path):
    """data.yaml's `path` of where it was made is of no use here, and nothing outside is read."""
    photos = yolo(tmp_path / "own", "1 0.1 0.1 0.5 0.1 0.5 0.5")
    text = (tmp_path / "own" / "data.yaml").read_text()
    (tmp_path / "own" / "data.yaml").write_text("path: /datasets/elsewhere\n" + text)
    assert open_own(tmp_path / "own", "labels").keys == photos.keys
    outside = tmp_path / "pictures"
    shutil.copytree(tmp_path / "own" / "images", outside)
    (tmp_path / "own" / "data.yaml").write_text(f"names: [cat]\ntrain: {outside}\n")
    with pytest.raises(ValueError, match="nothing at .*expected a folder of pictures in it"):
        _ = open_own(tmp_path / "own", "labels").keys


LEFT_OUT = {
    "images/train/y.heic": r"1 files beside its 1 pictures are of another kind, first .*y\.heic",
    "images/train/more/y.pdf": r"of another kind, first .*more/y\.pdf",
    "images/train/x.txt": r"label files without a picture, first .*images/train/x\.txt",
    "labels/train/y.txt": r"label files without a picture, first .*labels/train/y\.txt",
    "labels/train/x.json": r"of another kind, first .*x\.json",
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_files_of_yolo_that_would_be_left_out_unsaid_are_refused(name, tmp_path, capsys):
    root = tmp_path / "own"
    photos = yolo(root, "1 0.1 0.1 0.5 0.1 0.5 0.5")
    for known in ("images/train/x.npy", "labels/train.cache", "labels/train/classes.txt",
                  "images/train/.DS_Store", "labels/train/._x.txt"):  # fmt: skip
        (root / known).write_bytes(b"left by a tool")
    photos.check(photos.keys, "any")
    assert "2 files that a system left there are skipped" in capsys.readouterr().err
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(b"mine")
    with pytest.raises(ValueError, match=LEFT_OUT[name]):
        _ = open_own(root, "labels").keys


@pytest.mark.parametrize("above", ["own", "images/own"])
def test_labels_of_yolo_lie_beside_pictures_that_are_in_no_folder_images(above, tmp_path):
    """Whatever the folders above the root are called: nothing outside is read."""
    root = tmp_path / above
    yolo(root, "1 0.1 0.1 0.5 0.1 0.5 0.5")
    (root / "images" / "train").rename(root / "train")
    (root / "labels" / "train" / "x.txt").rename(root / "train" / "x.txt")
    (root / "data.yaml").write_text("names: [cat, bird]\ntrain: train\n")
    photos = open_own(root, "labels")
    assert photos.truth(*photos.keys).max() == 2
    (root / "data.yaml").rename(root / "train" / "data.yaml")
    (root / "train" / "data.yaml").write_text("names: [cat, bird]\ntrain: .\n")
    assert len(open_own(root / "train", "labels").keys) == 1


def test_objects_that_overlap_and_pictures_without_a_file(tmp_path):
    """The smaller is on top; no label file is a picture that shows nothing."""
    square = "0.0 0.0 0.9 0.0 0.9 0.9 0.0 0.9"
    small = "0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5"
    photos = yolo(tmp_path / "own", f"1 {small}\n0 {square}\n\n")
    label = photos.truth(photos.keys[0])
    assert label[15, 20] == 2 and label[30, 45] == 1 and label[38, 58] == 0
    (tmp_path / "own" / "labels" / "train" / "x.txt").unlink()
    assert not photos.truth(photos.keys[0]).any()


def test_what_packed_files_lack_is_said(tmp_path, scenes, truth):
    datasets = pytest.importorskip("datasets")
    root = tmp_path / "own"
    (root / "data").mkdir(parents=True)
    rows = {"image": [Image.fromarray(scenes[0].image)], "label": [Image.fromarray(truth[0])]}
    plain = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    made = datasets.Dataset.from_dict(rows, features=plain)
    made.to_parquet(root / "data" / "train.parquet")
    with pytest.raises(ValueError, match=r"no class names.*id2label\.json"):
        open_own(root, "labels")
    names = {"0": "background", "1": "cat", "2": "bottle", "3": "bird"}
    (root / "id2label.json").write_text(json.dumps(names))
    photos = open_own(root, "labels")
    assert np.array_equal(photos.truth(photos.keys[0]), truth[0])
    (root / "id2label.json").write_text(json.dumps({"0": "cat", "1": "bird"}))
    with pytest.raises(ValueError, match="label 0 is 'cat'; expected `background`"):
        open_own(root, "labels")
    made.remove_columns("label").to_parquet(root / "data" / "train.parquet")
    with pytest.raises(ValueError, match="expected a column `image` and one of label maps"):
        open_own(root, "labels")
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "tars").mkdir()
    with webdataset.TarWriter(str(tmp_path / "tars" / "x.tar"), encoder=False) as tar:
        tar.write({"__key__": "a", "png": encode_png(scenes[0].image)})
    with pytest.raises(ValueError, match=r"a: it has png; expected a picture and a label map"):
        _ = open_own(tmp_path / "tars", "labels").keys


@pytest.mark.parametrize("fault", ["header", "cut between", "cut inside", "no end", "more"])
def test_a_tar_file_that_holds_more_or_less_than_it_should_is_refused(
    fault, tmp_path, scenes, truth
):
    """tarfile itself takes most of these for the end of the file, without a word."""
    write_shards(tmp_path, scenes, truth)
    file = tmp_path / "train-000000.tar"
    data = file.read_bytes()
    with tarfile.open(file) as tar:
        members = list(tar)
    third, last = members[6].offset, members[-1].offset_data + 512 * -(-members[-1].size // 512)
    spoilt = {
        "header": flipped(data, third + 10),
        "cut between": data[:third],
        "cut inside": data[: members[6].offset_data + 1],
        "no end": data[: last + 512],
        "more": data + data,  # two files joined
    }
    file.write_bytes(spoilt[fault])
    with pytest.raises(ValueError, match=r"train-000000\.tar is (damaged|cut|no whole tar file)"):
        _ = open_own(tmp_path, "labels").keys
    file.write_bytes(data[:last] + bytes(1024))  # no more than it needs
    (tmp_path / "._train-000000.tar").write_bytes(b"macOS")
    assert len(open_own(tmp_path, "labels").keys) == len(scenes)


def without_label(table):
    return table.drop_columns("label")


def of_text(table):
    """Its pictures' bytes as text, which is no picture."""
    kind = pa.struct({"bytes": pa.string(), "path": pa.string()})
    return table.set_column(0, "image", pa.array([{"bytes": "x", "path": "x"}] * len(table), kind))


def with_note(note):
    return lambda table: table.replace_schema_metadata({"huggingface": note})


OTHER_CLASSES = '{"a": {"_type": "ClassLabel", "names": ["background", "bird", "cat"]}}'
SECOND = {
    "column": (without_label, "expected a column `image` and one of label maps"),
    "text": (of_text, "expected a column `image` and one of label maps"),
    "JSON": (with_note("{"), "its metadata `huggingface` is no JSON"),
    "classes": (with_note(OTHER_CLASSES), "its features name other classes than those of train-0"),
    "none": (
        with_note('{"a": {"_type": "ClassLabel", "names": []}}'),
        "its features name other classes than",
    ),
}


@pytest.mark.parametrize("fault", SECOND)
def test_every_parquet_file_must_say_the_same(fault, tmp_path, scenes, truth):
    """What the first one says was taken for all of them."""
    write_hub(tmp_path, scenes, truth)
    first = tmp_path / "data" / "train-00000-of-00001.parquet"
    changed, match = SECOND[fault]
    pq.write_table(changed(pq.read_table(first)), tmp_path / "data" / "train-1.parquet")
    with pytest.raises(ValueError, match=rf"train-1\.parquet: {match}"):
        open_own(tmp_path, "labels")


@pytest.mark.parametrize("how", ["half", "empty", "flipped"])
def test_a_damaged_parquet_file_is_named(how, tmp_path, scenes, truth):
    write_hub(tmp_path, scenes, truth)
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    data = file.read_bytes()
    if how == "flipped":  # in the first page's header: the schema is sound
        file.write_bytes(data[:4] + bytes(60) + data[64:])
    else:
        spoil(file, how)
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet cannot be read .*Get it"):
        photos = open_own(tmp_path, "labels")
        _ = [photos.content(key, what) for key in photos.keys for what in ("picture", "label map")]


@pytest.mark.parametrize("layout", ["hf", "webdataset"])
def test_files_that_are_missing_of_a_numbered_set_are_named(layout, tmp_path, scenes, truth):
    WRITERS[layout](tmp_path, scenes, truth)
    (file,) = [*tmp_path.rglob("*.parquet"), *tmp_path.rglob("*.tar")]

    def called(*names):
        files = [path for path in file.parent.iterdir() if path.suffix == file.suffix]
        for path, name in zip(files, names, strict=False):
            path.rename(file.with_name(name + file.suffix))
        for name in names[len(files) :]:
            shutil.copy(file.with_name(names[0] + file.suffix), file.with_name(name + file.suffix))
        return open_own(tmp_path, "labels")

    with pytest.raises(
        ValueError, match=r"1 of 2 files .* are missing, first train-00001-of-00002"
    ):
        called("train-00000-of-00002")
    called("train-00000-of-00001-0123456789abcdef")  # as `datasets` wrote them once
    called("train-00000")
    with pytest.raises(ValueError, match="train-00000-of-00001 is there twice, or of another set"):
        called("train-00000-of-00001", "train-00000-of-00001-0123456789abcdef")
    with pytest.raises(ValueError, match="2 of 3 files .* are missing, first train-00001-of-00003"):
        called("train-00000-of-00003", "train-00001-of-00002")
    called("train-00000-of-00002", "train-00001-of-00002")
    (file.with_name("val-00000-of-00002" + file.suffix)).write_bytes(b"of another part")
    assert len(open_own(tmp_path, "labels").files) == 2


def voc_of_names(root, *names):
    """A set in VOC's layout, the n-th picture (and mask) all of value n."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for value, name in enumerate(names, start=1):
        level = Image.fromarray(np.full((8, 8), value, np.uint8))
        level.save(root / "JPEGImages" / f"{name}.png")
        level.save(root / "SegmentationClass" / f"{name}.png")
    (root / "classes.txt").write_text("".join(f"class {i}\n" for i in range(len(names))))
    return root / "ImageSets" / "Segmentation"


@pytest.mark.parametrize(
    "line, key",
    {
        "hall (1)": "hall (1)",  # and not the picture `hall`
        "hall (1).png": "hall (1)",
        "hall 1": "hall 1",
        "hall  1": "hall",  # with VOC's column
        "frame.0002 -1": "frame.0002",
        "/JPEGImages/hall.png /SegmentationClass/frame.0001.png": "hall",
        "frame.0001.png frame.0002.png": "frame.0001",
        "JPEGImages/frame.0001": "frame.0001",
    }.items(),
)
def test_a_line_of_voc_names_the_picture_that_it_says(line, key, tmp_path):
    names = ("hall", "hall (1)", "hall 1", "frame.0001", "frame.0002")
    lists = voc_of_names(tmp_path, *names)
    (lists / "train.txt").write_text(f"{line}\n")
    photos = open_own(tmp_path, "train")
    assert photos.keys == (key,)
    assert np.unique(photos.truth(key)).tolist() == [names.index(key) + 1]
    assert photos.photo(key).stem == key


def test_stems_with_dots_and_lines_of_pictures_that_are_not_there(tmp_path):
    lists = voc_of_names(tmp_path, "hall", "frame.0001", "frame.0002")
    (lists / "train.txt").write_text("frame.0001\nframe.0002\n")
    assert open_own(tmp_path, "train").keys == ("frame.0001", "frame.0002")
    for line in ("hall (2)", "hall (2).png", "hall 2"):
        (lists / "train.txt").write_text(f"{line}\n")
        with pytest.raises(ValueError, match=r"have no file in JPEGImages/, first 'hall .*2"):
            _ = open_own(tmp_path, "train").keys


def test_a_link_in_a_tar_file_is_no_sample_to_leave_out(tmp_path, scenes, truth):
    write_shards(tmp_path, scenes, truth)
    with tarfile.open(tmp_path / "train-000000.tar", "a") as tar:
        link = tarfile.TarInfo("09.png")
        link.type, link.linkname = tarfile.LNKTYPE, "00.png"
        tar.addfile(link)
    with pytest.raises(ValueError, match=r"09\.png is a link or a device; expected files"):
        _ = open_own(tmp_path, "labels").keys


def test_a_compressed_tar_file_is_named_as_one(tmp_path, scenes, truth):
    write_shards(tmp_path, scenes, truth)
    file = tmp_path / "train-000000.tar"
    packed = gzip.compress(file.read_bytes())
    (tmp_path / "train-000001.tar.gz").write_bytes(packed)  # would be left out silently
    with pytest.raises(ValueError, match=r"000001\.tar\.gz is compressed; expected a plain \.tar"):
        open_own(tmp_path, "labels")
    (tmp_path / "train-000001.tar.gz").unlink()
    file.write_bytes(packed)
    with pytest.raises(ValueError, match=r"000000\.tar is compressed; expected a plain \.tar"):
        _ = open_own(tmp_path, "labels").keys


def test_coco_that_cannot_be_used_is_refused(tmp_path, scenes, truth):
    write_coco(tmp_path / "own", scenes, truth)
    file = tmp_path / "own" / "annotations" / "instances_train.json"
    values = json.loads(file.read_text())

    def refused(match, **changes):
        file.write_text(json.dumps(values | changes))
        photos = open_own(tmp_path / "own", "labels")
        with pytest.raises(ValueError, match=match):
            photos.check(photos.keys, "any", VOC)
            _ = [photos.truth(key) for key in photos.keys]

    refused("name of their own", categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}])
    boxes = [own | {"segmentation": []} for own in values["annotations"]]
    refused("expected polygons or run lengths", annotations=boxes)
    images = [image | {"ignored": {"size": [2, 2], "counts": "04"}} for image in values["images"]]
    refused(r"image 5, ignored: run lengths of size \[2, 2\]", images=images)
    refused("are missing", images=[image | {"file_name": "no.png"} for image in images[:1]],
            annotations=[])  # fmt: skip


@pytest.mark.parametrize("layout", ["coco", "hf"])
def test_a_benchmark_may_lie_in_any_of_the_layouts(layout, tmp_path, scenes, truth):
    """As `benchmark.source: folder`, through the stage, which keeps the pictures to the pixel."""
    WRITERS[layout](tmp_path / "own", scenes, truth, "val")
    params = load_params("ci")
    benchmark = replace(params.benchmark, source="folder", root=str(tmp_path / "own"))
    report = run_stage("benchmark", replace(params, benchmark=benchmark), tmp_path)
    assert report.facts["pictures"] == len(scenes) and report.facts["name"] == "own test"
    rows = read_shards(Workspace(tmp_path, "ci").folder("benchmark"), ["image", "label"])
    for row, scene, label in zip(rows.itertuples(), scenes, truth, strict=True):
        assert np.array_equal(decode_png(row.image), scene.image)
        assert np.array_equal(decode_png(row.label) > 0, label > 0)
