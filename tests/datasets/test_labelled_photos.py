"""Readers of labelled photographs: label maps drawn by hand come back, and whatever a stranger may
have got wrong is said before any work."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from ml import datasets
from ml.datasets import coco as coco_module
from ml.datasets import data_digest, open_source
from ml.datasets import voc as voc_module
from ml.datasets.matching import class_table
from ml.datasets.protocol import NoSuchPart
from ml.images.overlays import PALETTE
from ml.images.png import decode_png
from ml.settings.profile import load_params
from ml.settings.sections import PHOTO_SOURCES
from ml.words.vocabulary import Vocabulary, load_vocabulary
from tests.builders import phototrees as trees

PETS = Vocabulary("pets", ("cat", "dog"), ("car",), {})
CAR, CAT, DOG = 1, 2, 3  # labels of PETS


def opened(source: str, root, part: str = "test"):
    return open_source(settings(source), part, str(root))


def settings(source: str):
    return dataclasses.replace(load_params().benchmark, source=source, root="somewhere")


def test_every_source_of_the_settings_has_a_reader():
    assert set(datasets.SOURCES) == {"drawn", *PHOTO_SOURCES}


# PASCAL VOC 2012


@pytest.fixture
def voc(tmp_path):
    return trees.write_voc(tmp_path)


@pytest.mark.parametrize("place", [".", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_voc_val_is_read_from_any_folder_of_the_archive(voc, tmp_path, place):
    photos = opened("voc2012", tmp_path / place)
    assert list(photos.keys) == sorted(trees.VOC_VAL)
    for key, label in trees.VOC_VAL.items():
        assert np.array_equal(photos.truth(key), label)
    assert photos.title == "PASCAL VOC 2012 val" and photos.official == 1449


def test_voc_labels_become_the_vocabularys(voc, tmp_path):
    photos = opened("voc2012", tmp_path)
    samples = {s.key: s for s in photos.read(photos.keys, PETS)}
    first = samples["2007_000033"]
    assert np.array_equal(
        first.label, trees.boxes(40, 60, (255, 4, 4, 26, 31), (CAT, 5, 5, 25, 30))
    )
    assert first.entities == ("cat",)
    # a person is no class of the vocabulary, and no background either
    assert np.array_equal(
        samples["2007_000061"].label,
        trees.boxes(40, 60, (CAR, 20, 10, 38, 50), (255, 0, 0, 10, 10)),
    )
    assert samples["2007_000042"].image.shape == (60, 40, 3)
    path = photos.photo("2007_000042")
    assert samples["2007_000042"].data == path.read_bytes()  # a JPEG stays as it is
    assert np.array_equal(decode_png(path.read_bytes()), samples["2007_000042"].image)
    assert photos.labelled_classes(PETS) == ("car", "cat", "dog")


def test_all_21_labels_of_voc_keep_their_meaning(voc, tmp_path):
    table = class_table(opened("voc2012", tmp_path), load_vocabulary("voc-zs3"))
    assert table[:21].tolist() == list(range(21)) and (table[21:] == 255).all()


@pytest.mark.parametrize("layout", ["mat", "png", "png with list"])
def test_trainaug_from_sbd_in_both_layouts(voc, tmp_path, layout):
    if layout == "mat":
        trees.write_sbd(tmp_path)
    else:
        trees.write_aug(voc, listed=layout == "png with list")
    photos = opened("voc2012", tmp_path, "train")
    expected = trees.VOC_TRAIN | {"2008_000002": trees.SBD_TRAIN["2008_000002"]}
    if layout != "png with list":  # SBD's and VOC's lists together, less VOC's val
        expected["2008_000003"] = trees.SBD_VAL["2008_000003"]
    assert list(photos.keys) == sorted(expected) and "2007_000033" not in photos.keys
    for key, label in expected.items():  # VOC's own mask wins over SBD's
        assert np.array_equal(photos.truth(key), label), key
    photos.check(photos.keys, "any")
    assert photos.title == "PASCAL VOC 2012 trainaug"


def test_without_sbd_the_official_training_part_is_refused(voc, tmp_path):
    photos = opened("voc2012", tmp_path, "train")
    assert sorted(photos.keys) == sorted(trees.VOC_TRAIN)
    with pytest.raises(
        ValueError,
        match=r"expected the official 10582 pictures, found 2; put "
        r"SBD's masks beside it: .*SegmentationClassAug.*cls/\*.mat",
    ):
        photos.check(photos.keys, "official")
    photos.check(photos.keys, "any")
    assert photos.described() == (
        "a part of PASCAL VOC 2012 train, without SBD (2 of 10582 pictures), not the official set"
    )


def test_a_partial_copy_never_passes_as_official(voc, tmp_path, monkeypatch):
    photos = opened("voc2012", tmp_path)
    with pytest.raises(
        ValueError,
        match="official 1449 pictures, found 3; unpack VOCtrainval_11"
        "-May-2012.tar again .*benchmark.subset: any",
    ):
        photos.check(photos.keys, "official")
    assert "not the official set" in photos.described()
    monkeypatch.setitem(voc_module.OFFICIAL, "val", 3)
    photos = opened("voc2012", tmp_path)
    photos.check(photos.keys, "official")
    assert photos.described() == "PASCAL VOC 2012 val"


def test_a_list_that_trains_on_val_is_refused(voc, tmp_path):
    trees.write_aug(voc, listed=True)
    trees.write_list(voc / "ImageSets/Segmentation/trainaug.txt", ["2007_000032", "2007_000033"])
    with pytest.raises(ValueError, match="lists 1 pictures of val, first 2007_000033"):
        opened("voc2012", tmp_path, "train").keys  # noqa: B018


def spoil_voc(voc, how: str) -> None:
    mask = voc / "SegmentationClass" / "2007_000042.png"
    photo = voc / "JPEGImages" / "2007_000042.jpg"
    label = trees.VOC_VAL["2007_000042"]
    val = voc / "ImageSets" / "Segmentation" / "val.txt"
    if how == "no photo":
        photo.unlink()
    elif how == "no mask":
        mask.unlink()
    elif how == "another size":
        trees.save_photo(photo, 30, 20, 9)
    elif how == "colours":
        Image.fromarray(PALETTE[label]).save(mask)
    elif how == "another palette":
        trees.save_palette(mask, label, {0: (0, 0, 0), 12: (1, 2, 3)})
    elif how == "unknown label":
        trees.save_palette(
            mask,
            np.where(label, 42, 0).astype(np.uint8),
            {0: (0, 0, 0), 42: tuple(PALETTE[42].tolist())},
        )
    elif how == "half a photo":
        photo.write_bytes(photo.read_bytes()[:10])
    elif how == "no list":
        val.unlink()
    elif how == "empty list":
        val.write_text("")
    elif how == "listed twice":
        val.write_text(val.read_text() + "2007_000042\n")


@pytest.mark.parametrize(
    "how, match",
    [
        (
            "no photo",
            "1 of 3 pictures are missing, first .*2007_000042.jpg; unpack the archive again",
        ),
        ("no mask", "2007_000042.png cannot be decoded"),
        ("another size", "2007_000042.jpg is 20x30 pixels, its labels 40x60; expected one size"),
        ("colours", r"expected a palette PNG \(mode P\) as VOC publishes them, got mode RGB"),
        ("another palette", r"where label 12 is \[64, 0, 128\], got \[1, 2, 3\]"),
        (
            "unknown label",
            r"holds the labels \[42\]; expected 0 \(background\), 255 \(ignored\) and "
            r"1..20 \(20 classes\)",
        ),
        ("half a photo", "2007_000042.jpg cannot be decoded .*half a download"),
        ("no list", "no split file .*val.txt; unpack"),
        ("empty list", "val.txt lists no picture"),
        ("listed twice", "val.txt lists '2007_000042' more than once"),
    ],
)
def test_spoilt_voc_is_refused_before_work(voc, tmp_path, how, match):
    spoil_voc(voc, how)
    with pytest.raises(ValueError, match=match):
        photos = opened("voc2012", tmp_path)
        photos.check(photos.keys, "any")


def test_a_spoilt_mat_is_refused(voc, tmp_path):
    trees.write_sbd(tmp_path)
    (tmp_path / "benchmark_RELEASE/dataset/cls/2008_000002.mat").write_bytes(b"half")
    photos = opened("voc2012", tmp_path, "train")
    with pytest.raises(ValueError, match="2008_000002.mat: expected SBD's struct GTcls"):
        photos.check(photos.keys, "any")


def test_a_folder_that_is_not_voc(tmp_path):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(
        ValueError,
        match="is not PASCAL VOC 2012: expected JPEGImages/.*found holiday. Set benchmark.root",
    ):
        opened("voc2012", tmp_path)
    with pytest.raises(ValueError, match="benchmark.root: no folder .*nothing is downloaded"):
        opened("voc2012", tmp_path / "nowhere")


# COCO 2017


@pytest.mark.parametrize("images", ["images/", ""])
def test_coco_instances_become_label_maps(tmp_path, images):
    trees.write_coco(tmp_path, images=images)
    photos = opened("coco2017", tmp_path)
    photos.check(photos.keys, "any")
    assert photos.official == 5000 and photos.title == "COCO 2017 val2017"
    assert list(photos.keys) == list(trees.COCO_TRUTH)
    for key, label in trees.COCO_TRUTH.items():
        assert np.array_equal(photos.truth(key), label), key
    samples = {s.key: s for s in photos.read(photos.keys, PETS)}
    assert samples["000000000139"].entities == ("car", "cat")
    assert samples["000000000632"].entities == ()  # COCO has pictures without any object
    assert (samples["000000000285"].label[:5, :5] == 255).all()  # a zebra


def test_coco_masks_are_those_of_pycocotools_and_the_order_does_not_matter(tmp_path):
    """Random polygons: each pixel has the class of the smallest mask that covers it."""
    values = trees.write_coco(tmp_path)
    rng = np.random.default_rng(0)
    polygons = [rng.uniform(0, 40, (1, 10)).tolist() for _ in range(6)]
    annotations = [
        trees.annotation(10 + i, 139, list(trees.COCO_IDS.values())[i % 5], polygon)
        for i, polygon in enumerate(polygons)
    ]
    masks = [
        coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(p, 40, 60))).astype(bool)
        for p in polygons
    ]
    areas = np.array([mask.sum() for mask in masks], float)
    cover = np.where(np.array(masks), areas[:, None, None], np.inf)
    ids = np.array([a["category_id"] for a in annotations])
    expected = np.where(np.isinf(cover.min(0)), 0, ids[cover.argmin(0)])
    for order in (annotations, annotations[::-1]):
        values["annotations"] = order
        (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(values))
        assert np.array_equal(opened("coco2017", tmp_path).truth("000000000139"), expected)


def test_coco_names_match_vocs_spellings(tmp_path):
    trees.write_coco(tmp_path)
    photos = opened("coco2017", tmp_path)
    voc = load_vocabulary("voc-zs3")
    table = class_table(photos, voc)
    assert photos.labelled_classes(voc) == voc.classes
    for coco_id, name in {
        5: "aeroplane",
        63: "sofa",
        67: "diningtable",
        4: "motorbike",
        64: "pottedplant",
        72: "tvmonitor",
        17: "cat",
    }.items():
        assert table[coco_id] == voc.label(name)
    assert table[24] == 255  # zebra


def test_grey_photographs_become_rgb(tmp_path):
    trees.write_coco(tmp_path)
    path = tmp_path / "images/val2017/000000000285.jpg"
    Image.open(path).convert("L").save(path)
    (sample,) = opened("coco2017", tmp_path).read(["000000000285"], PETS)
    assert sample.image.shape == (60, 40, 3) and sample.data[:4] == b"\x89PNG"
    assert np.array_equal(decode_png(sample.data), sample.image)


def test_coco_partial_and_official(tmp_path, monkeypatch):
    trees.write_coco(tmp_path)
    photos = opened("coco2017", tmp_path)
    with pytest.raises(
        ValueError, match="COCO 2017 val2017: expected the official 5000 pictures, found 3"
    ):
        photos.check(photos.keys, "official")
    monkeypatch.setitem(coco_module.OFFICIAL, "val2017", 3)
    opened("coco2017", tmp_path).check(photos.keys, "official")


def change_coco(root, how: str) -> None:
    file = root / "annotations" / "instances_val2017.json"
    values = json.loads(file.read_text())
    if how == "half a file":
        file.write_text(file.read_text()[:200])
        return
    if how == "other categories":
        values["categories"][0]["name"] = "human"
    elif how == "unknown category":
        values["annotations"][0]["category_id"] = 12
    elif how == "another size":
        values["images"][1]["height"] = 61
    elif how == "no photo":
        (root / "images/val2017/000000000285.jpg").unlink()
    file.write_text(json.dumps(values))


@pytest.mark.parametrize(
    "how, match",
    [
        ("half a file", "is not COCO's annotations .*half a download"),
        (
            "other categories",
            r"expected COCO's 80 categories, got 80; they differ at \[\(1, 'human'",
        ),
        (
            "unknown category",
            "1 of 5 annotations cannot be used: annotation 1: "
            "names picture 139 and category 12; expected a listed",
        ),
        ("another size", "is 40x60 pixels, its labels 40x61"),
        ("no photo", "1 of 3 pictures are missing, first .*000000000285.jpg"),
    ],
)
def test_spoilt_coco_is_refused_before_work(tmp_path, how, match):
    trees.write_coco(tmp_path)
    change_coco(tmp_path, how)
    with pytest.raises(ValueError, match=match):
        photos = opened("coco2017", tmp_path)
        photos.check(photos.keys, "any")


def test_a_folder_that_is_not_coco(tmp_path):
    trees.write_coco(tmp_path)
    with pytest.raises(
        ValueError,
        match="does not hold COCO 2017 train2017: expected annotations/"
        "instances_train2017.json .*found annotations, images",
    ):
        opened("coco2017", tmp_path, "train")


# a user's own folder


def test_own_folder_with_classes(own):
    photos = opened("folder", own)
    photos.check(photos.keys, "official")  # there is no official count
    words = Vocabulary("yard", ("person",), ("forklift", "hard hat"), {})
    assert photos.labelled_classes(words) == ("forklift", "hard hat")
    for sample in photos.read(photos.keys, words):
        assert np.array_equal(sample.label, trees.OWN_TRUTH[sample.key])  # labels happen to agree
    assert photos.described() == "yard test"


def test_own_folder_with_colours(own):
    colours = {0: (0, 0, 0), 1: (200, 0, 0), 2: (0, 0, 90), 255: (255, 255, 255)}
    table = np.array([colours.get(i, (9, 9, 9)) for i in range(256)], np.uint8)
    for key, label in trees.OWN_TRUTH.items():
        Image.fromarray(table[label]).save(own / "masks" / f"{key}.png")
    with pytest.raises(
        ValueError,
        match="got mode RGB; export it as an indexed PNG, or list its colours in palette.txt",
    ):
        opened("folder", own).check(["hall 1"], "any")
    (own / "classes.txt").unlink()
    (own / "palette.txt").write_text("200 0 0 forklift\n0 0 90 hard hat\n")
    photos = opened("folder", own)
    assert photos.names == {1: "forklift", 2: "hard hat"}
    for key, label in trees.OWN_TRUTH.items():
        assert np.array_equal(photos.truth(key), label)
    trees.save_photo(own / "masks" / "hall 1.png", 40, 60, 0)  # soft edges
    with pytest.raises(ValueError, match="that palette.txt does not list"):
        photos.truth("hall 1")


def test_parts_of_an_own_folder(own):
    with pytest.raises(NoSuchPart, match="no train.txt"):
        opened("folder", own, "train")
    assert data_digest(settings("folder"), "train", str(own)) == "no such part"
    trees.write_list(own / "train.txt", ["hall 2"])
    (own / "train.txt").write_text("hall 2.jpg\n")
    assert opened("folder", own, "train").keys == ("hall 2",)
    assert opened("folder", own).keys == ("hall 1", "hall 3")
    assert data_digest(settings("folder"), "train", str(own)) != "no such part"
    (own / "test.txt").write_text("hall 1\nhall 2\n")
    with pytest.raises(ValueError, match="1 pictures are in test.txt and train.txt, first 'hall 2"):
        opened("folder", own).keys  # noqa: B018
    (own / "train.txt").write_text("hall 2\nhall 2\n")
    with pytest.raises(ValueError, match="train.txt lists 'hall 2' more than once"):
        opened("folder", own, "train").keys  # noqa: B018
    (own / "train.txt").write_text("hall 9\n")
    with pytest.raises(ValueError, match="1 of 1 have no photograph in images/, first 'hall 9'"):
        photos = opened("folder", own, "train")
        photos.check(photos.keys, "any")


@pytest.mark.parametrize(
    "how, match",
    [
        ("no classes", "expected either classes.txt .*found neither"),
        ("no masks folder", "is not a labelled folder: no masks/"),
        ("no mask", "1 of 3 have no mask in masks/, first 'hall 2'"),
        ("twice", r"expected 1 to 254 classes, each once; got 2, repeated: \['hat'\]"),
        ("two photos", "share the stem 'hall 1'"),
        ("more labels", r"holds the labels \[2\]; expected .* 1..1 \(1 classes\)"),
        ("bad palette", "expected `red green blue class` .*got '1 2 forklift'"),
        ("black class", r"colour \(0, 0, 0\) of 'forklift': black is background"),
    ],
)
def test_spoilt_own_folder_is_refused(own, how, match):
    classes = own / "classes.txt"
    if how == "no classes":
        classes.unlink()
    elif how == "no masks folder":
        shutil.rmtree(own / "masks")
    elif how == "no mask":
        (own / "masks" / "hall 2.png").unlink()
    elif how == "twice":
        classes.write_text("hat\nhat\n")
    elif how == "two photos":
        trees.save_photo(own / "images" / "hall 1.png", 40, 60, 1)
    elif how == "more labels":
        classes.write_text("background\nforklift\n")
    else:
        classes.rename(own / "palette.txt").write_text(
            "1 2 forklift\n" if how == "bad palette" else "0 0 0 forklift\n"
        )
    with pytest.raises(ValueError, match=match):
        photos = opened("folder", own)
        photos.check(photos.keys, "any")


def test_a_vocabulary_without_the_datas_classes(own):
    with pytest.raises(
        ValueError,
        match="vocabulary 'pets' lists none of the classes of yard test:"
        " expected some of forklift, hard hat; got car, cat, dog",
    ):
        class_table(opened("folder", own), PETS)
    with pytest.raises(ValueError, match="'couch' and 'sofa' are one class, sofa; keep one"):
        class_table(opened("folder", own), Vocabulary("v", ("couch",), ("sofa",), {}))


# digests


def test_digest_follows_the_data_and_not_its_place(voc, tmp_path):
    first = data_digest(settings("voc2012"), "test", str(tmp_path))
    shutil.copytree(voc, tmp_path / "copy" / "VOC2012")
    assert data_digest(settings("voc2012"), "test", str(tmp_path / "copy")) == first
    mask = voc / "SegmentationClass" / "2007_000042.png"
    trees.save_palette(mask, trees.boxes(60, 40, (trees.DOG, 10, 10, 40, 31)))
    changed = data_digest(settings("voc2012"), "test", str(tmp_path))
    assert changed != first
    trees.save_photo(voc / "JPEGImages" / "2007_000042.jpg", 60, 40, 77)
    assert data_digest(settings("voc2012"), "test", str(tmp_path)) != changed
    mask.unlink()
    with pytest.raises(ValueError, match="1 of 3 label files are missing"):
        data_digest(settings("voc2012"), "test", str(tmp_path))


def test_digest_of_coco_reads_no_annotations(tmp_path, monkeypatch):
    trees.write_coco(tmp_path)
    # parsing train2017 takes half a minute
    monkeypatch.setattr(coco_module, "read_annotations", None)
    first = data_digest(settings("coco2017"), "test", str(tmp_path))
    (tmp_path / "images/val2017/000000000632.jpg").unlink()
    assert data_digest(settings("coco2017"), "test", str(tmp_path)) != first


def test_drawn_and_none_have_no_digest():
    benchmark = load_params().benchmark
    assert data_digest(benchmark, "test", ".") is None


# vocabularies


def test_coco_splits_hold_cocos_classes():
    split, whole = load_vocabulary("coco-65-15"), load_vocabulary("coco-80")
    assert set(split.classes) == set(whole.classes) == set(coco_module.CLASSES)
    assert len(split.seen) == 65 and len(split.unseen) == 15 and not whole.unseen
    assert set(split.unseen) == {
        "airplane",
        "train",
        "parking meter",
        "cat",
        "bear",
        "suitcase",
        "frisbee",
        "snowboard",
        "fork",
        "sandwich",
        "hot dog",
        "toilet",
        "mouse",
        "toaster",
        "hair drier",
    }
    assert split.words["mouse"] == ("computer mouse", "mouse")


def test_coco_category_ids_are_cocos():
    ids = coco_module.CATEGORIES
    assert len(ids) == 80 and (ids[1], ids[90], ids[44], ids[67], ids[72]) == (
        "person",
        "toothbrush",
        "bottle",
        "dining table",
        "tv",
    )
