"""COCO's annotations and SBD's .mat files: every way to write a shape gives its mask, and what is
none is one error that names the entry, whatever the damage."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
import scipy.io
from pycocotools import mask as coco_mask

from ml.datasets.mat import read_struct_matrix
from ml.images.run_lengths import decode_rle, encode_rle, run_lengths
from ml.words.vocabulary import Vocabulary
from tests.builders import phototrees as trees
from tests.builders.foreignpictures import checked, opened

PETS = Vocabulary("pets", ("cat", "dog"), ("car",), {})

# COCO


TEXT = coco_mask.encode(np.asfortranarray(trees.boxes(40, 60, (1, 3, 3, 30, 30))))[
    "counts"
].decode()
BAD_SHAPES = {
    "empty": ([], "segmentation \\[\\]"),
    "null": (None, "segmentation None"),
    "a text": ("polygon", "segmentation 'polygon'"),
    "flat": ([1, 2, 3, 4, 5, 6], "is no polygon"),
    "two points": ([[1, 2, 30, 40]], "polygons have 2 points; expected three"),
    "no points": ([[]], "polygons have 0 points"),
    "odd": ([[1, 2, 3, 4, 5, 6, 7]], "is no polygon; expected lists of pairs"),
    "texts": ([["1", "2", "3", "4", "5", "6"]], "is no polygon"),
    "nested": ([[[1, 2], [3, 4], [5, 6]]], "is no polygon"),
    "ragged": ([[[1, 2], [3], [5, 6]]], "is no polygon"),
    "nulls": ([[1, 2, 3, None, 5, 6]], "is no polygon"),
    "infinite": ([[1, 2, 3, 1e999, 5, 6]], "far off the picture"),
    "nan": ([[1, 2, 3, float("nan"), 5, 6]], "far off the picture"),
    "far": ([[1, 2, 3, 1e9, 5, 6]], "up to 1e\\+09 lies far off"),
    "size": ({"size": [60, 40], "counts": [2400]}, r"of size \[60, 40\]; expected its picture's"),
    "no size": ({"counts": [2400]}, "of size None"),
    "short": ({"size": [40, 60], "counts": [5, 9]}, "over 14 pixels; its picture has 2400"),
    "long": ({"size": [40, 60], "counts": [2400, 9]}, "over 2409 pixels"),
    "negative": ({"size": [40, 60], "counts": [2500, -100]}, "expected whole numbers"),
    "fractions": ({"size": [40, 60], "counts": [2399.5, 0.5]}, "expected whole numbers"),
    "null counts": ({"size": [40, 60], "counts": None}, "counts None"),
    "cut text": ({"size": [40, 60], "counts": TEXT[:-2]}, "over .* pixels|within a number"),
    "garbage text": ({"size": [40, 60], "counts": "\u20ac\u20ac"}, "no run lengths"),
    "empty text": ({"size": [40, 60], "counts": ""}, "over 0 pixels"),
}


@pytest.fixture
def coco(tmp_path):
    root = tmp_path / "coco"
    return root, trees.write_coco(root)


def rewrite(root, values) -> None:
    (root / "annotations/instances_val2017.json").write_text(
        values if isinstance(values, str) else json.dumps(values)
    )


@pytest.mark.parametrize("name", BAD_SHAPES)
def test_shapes_that_are_none_are_refused_with_their_annotation(coco, name):
    root, values = coco
    shape, match = BAD_SHAPES[name]
    values["annotations"] += [
        trees.annotation(71, 139, 17, shape),
        trees.annotation(72, 139, 17, shape),
    ]
    rewrite(root, values)
    with pytest.raises(
        ValueError,
        match=f"instances_val2017.json: 2 of 7 annotations cannot be "
        f"used: annotation 71: .*{match}.*annotation 72: .*Mend or remove",
    ) as said:
        checked("coco2017", root)
    assert len(str(said.value)) < 900 and "\n" not in str(said.value)


def test_a_shape_that_is_missing_is_refused(coco):
    root, values = coco
    del values["annotations"][0]["segmentation"]
    rewrite(root, values)
    with pytest.raises(ValueError, match="annotation 1: segmentation None"):
        checked("coco2017", root)


@pytest.mark.parametrize(
    "shape",
    [
        {"size": [40, 60], "counts": TEXT},
        trees.runs(trees.boxes(40, 60, (1, 3, 3, 30, 30))),
        trees.rectangle(3, 3, 30, 30),
        [[1, 1, 2, 2], *trees.rectangle(3, 3, 30, 30)],
        [*trees.rectangle(3, 3, 30, 20), *trees.rectangle(3, 20, 30, 30)],
    ],
)
def test_every_way_to_write_a_shape_gives_its_mask(coco, shape):
    root, values = coco
    values["annotations"] = [trees.annotation(71, 139, 17, shape)]
    rewrite(root, values)
    photos = checked("coco2017", root)
    assert np.array_equal(photos.truth("000000000139"), trees.boxes(40, 60, (17, 3, 3, 30, 30)))


ENTRIES = {  # part, place, change, what is said
    "id as text": ("images", 0, {"id": "139"}, "images\\[0\\]: id '139'; expected a whole number"),
    "no id": ("images", 0, {"id": None}, "images\\[0\\]: id None"),
    "id twice": ("images", 0, {"id": 285}, "image 285: its id comes twice"),
    "fraction": ("images", 0, {"id": 139.0}, "id 139.0"),
    "no name": ("images", 0, {"file_name": None}, "image 139: file_name None"),
    "a zero byte": ("images", 0, {"file_name": "a\0.jpg"}, "image 139: file_name 'a"),
    "absolute": ("images", 0, {"file_name": "/etc/passwd"}, "leaves the pictures' folder"),
    "up": ("images", 0, {"file_name": "a/../../../x.jpg"}, "leaves the pictures' folder"),
    "up as Windows": ("images", 0, {"file_name": "..\\x.jpg"}, "leaves the pictures' folder"),
    "a drive": ("images", 0, {"file_name": "C:\\x.jpg"}, "leaves the pictures' folder"),
    "name twice": ("images", 0, {"file_name": "000000000285.jpg"}, "is image 139's"),
    "no height": ("images", 0, {"height": None}, "image 139: height None, width 60"),
    "height 0": ("images", 0, {"height": 0}, "height 0, width 60; expected"),
    "height as text": ("images", 0, {"height": "40"}, "height '40'"),
    "a bomb": ("images", 0, {"height": 10**6, "width": 10**6}, "89,478,485 pixels at most"),
    "annotation id as text": ("annotations", 1, {"id": "2"}, "annotations\\[1\\]: id '2'"),
    "annotation twice": ("annotations", 1, {"id": 1}, "annotation 1: its id comes twice"),
    "image as text": ("annotations", 1, {"image_id": "139"}, "annotation 2: names picture '139'"),
    "image unknown": ("annotations", 1, {"image_id": 7}, "annotation 2: names picture 7"),
    "category unknown": ("annotations", 1, {"category_id": 0}, "category 0; expected a listed"),
    "category a list": ("annotations", 1, {"category_id": []}, "category \\[\\]"),
    "crowd": ("annotations", 1, {"iscrowd": "no"}, "annotation 2: iscrowd 'no'; expected 0 or 1"),
    "no entry": ("annotations", 1, 7, "annotations\\[1\\]: id None"),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_entries_that_are_none_are_refused_with_their_place(coco, name):
    root, values = coco
    part, place, change, match = ENTRIES[name]
    if isinstance(change, dict):
        values[part][place] |= change
    else:
        values[part][place] = change
    rewrite(root, values)
    with pytest.raises(ValueError, match=f"instances_val2017.json: .*{match}"):
        checked("coco2017", root)


@pytest.mark.parametrize(
    "text, match",
    [
        ("[]", "expected the lists categories, images, annotations"),
        ("null", "expected the lists"),
        ('{"images": [], "annotations": []}', "expected the lists"),
        ('{"categories": 1, "images": [], "annotations": []}', "expected the lists"),
        ('{"categories": [1], "images": [], "annotations": []}', "expected categories with id and"),
        (
            '{"categories": [{}], "images": [], "annotations": []}',
            "expected categories with id and",
        ),
        ("[" * 100_000, "is not COCO's annotations"),
        ("", "is not COCO's annotations"),
    ],
)
def test_files_that_are_no_annotations_are_one_line(coco, text, match):
    root, _ = coco
    rewrite(root, text)
    with pytest.raises(ValueError, match=match) as said:
        checked("coco2017", root)
    assert "\n" not in str(said.value) and len(str(said.value)) < 500


def test_annotations_in_another_encoding_are_one_line(coco):
    root, values = coco
    file = root / "annotations/instances_val2017.json"
    values["info"] = {"by": "Jos\u00e9" * 1000}
    file.write_bytes(json.dumps(values, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(ValueError, match="not UTF-8") as said:
        checked("coco2017", root)
    assert len(str(said.value)) < 500
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(values, ensure_ascii=False).encode())
    checked("coco2017", root)


def test_fractions_for_pixels_are_refused(coco):
    root, values = coco
    values["annotations"] = [trees.annotation(1, 139, 17, [[0.1, 0.1, 0.5, 0.1, 0.5, 0.5]])]
    rewrite(root, values)
    with pytest.raises(ValueError, match="every polygon lies within 0..1; expected pixels"):
        checked("coco2017", root)


def test_a_picture_that_is_a_link_out_of_the_root_is_refused(coco, tmp_path):
    root, _ = coco
    picture = root / "images/val2017/000000000139.jpg"
    picture.rename(tmp_path / "elsewhere.jpg")
    picture.symlink_to(tmp_path / "elsewhere.jpg")
    with pytest.raises(ValueError, match="is a link to .*elsewhere.jpg, outside of"):
        checked("coco2017", root)
    picture.unlink()
    (tmp_path / "elsewhere.jpg").rename(picture)
    (root / "images/val2017").rename(tmp_path / "disk2")  # the whole folder may lie elsewhere
    (root / "images/val2017").symlink_to(tmp_path / "disk2")
    checked("coco2017", root)


def test_pictures_of_other_kinds_count_in_the_digest_of_coco(coco):
    root, values = coco
    folder = root / "images/val2017"
    (folder / "000000000139.jpg").unlink()
    trees.save_photo(folder / "part/000000000139.PNG", 40, 60, 0)
    (folder / "._000000000285.jpg").write_bytes(b"x")
    values["images"][0]["file_name"] = "part/000000000139.PNG"
    rewrite(root, values)
    photos = checked("coco2017", root)
    assert [path.name for path in photos.photo_files()] == [
        "000000000285.jpg",
        "000000000632.jpg",
        "000000000139.PNG",
    ]


def test_run_lengths_agree_with_pycocotools():
    rng = np.random.default_rng(0)
    for share in (0, 0.02, 0.5, 1):
        mask = rng.random((37, 53)) < share
        text = encode_rle(mask)
        runs = run_lengths(json.loads(text)["counts"])
        assert runs == trees.runs(mask)["counts"] and np.array_equal(decode_rle(text), mask)
    whole = json.loads(encode_rle(rng.random((37, 53)) < 0.5))
    for counts in (whole["counts"][:-3], whole["counts"] + "9", "~~~", "o" * 40, ""):
        with pytest.raises(ValueError, match="expected"):
            decode_rle(json.dumps(whole | {"counts": counts}))


ODD = [
    None,
    -1,
    0,
    1.5,
    "x",
    "",
    [],
    {},
    [[]],
    True,
    10**30,
    float("nan"),
    "139",
    [1, 2],
    {"size": [40, 60], "counts": "abc"},
    {"size": [40, 60], "counts": [2400]},
    [[1, 2, 3, 4]],
    "\0",
    "../x",
]
UNREAD = {"area", "bbox", "info", "licenses", "supercategory"}


def places(value) -> list:
    """(container, key) of everything in plain data that a reader looks at."""
    keys = (
        value.keys() - UNREAD
        if isinstance(value, dict)
        else range(len(value))
        if isinstance(value, list)
        else ()
    )
    return [place for key in sorted(keys) for place in [(value, key), *places(value[key])]]


@pytest.mark.slow
def test_whatever_is_put_anywhere_into_annotations_is_read_or_refused(coco):
    root, values = coco
    text, rng = json.dumps(values), np.random.default_rng(0)
    for _ in range(400):
        spoilt = json.loads(text)
        container, key = (found := places(spoilt))[rng.integers(len(found))]
        container[key] = ODD[rng.integers(len(ODD))]
        rewrite(root, spoilt)
        try:
            photos = checked("coco2017", root, PETS)
        except ValueError as error:
            said = str(error)
            assert "coco" in said.lower() and "\n" not in said and len(said) < 900
        else:
            assert all(photos.truth(name).shape == photos.labelled(name)[0] for name in photos.keys)


# SBD's .mat


def mat_bytes(label: np.ndarray, packed: bool) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(
        buffer,
        {
            "other": np.arange(5.0),
            "GTcls": {
                "Boundaries": np.zeros((20, 1), object),
                "Segmentation": label,
                "CategoriesPresent": np.unique(label[label > 0]),
            },
        },
        do_compression=packed,
    )
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", [np.uint8, np.float64, np.int32])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(30, 70), (1, 3), (2, 2)])
def test_mat_files_read_as_scipy_reads_them(dtype, packed, shape):
    label = np.random.default_rng(0).integers(0, 21, shape).astype(dtype)
    data = mat_bytes(label, packed)
    found = read_struct_matrix(data, "GTcls", "Segmentation")
    theirs = scipy.io.loadmat(io.BytesIO(data))["GTcls"]["Segmentation"][0, 0]
    assert np.array_equal(found, label) and np.array_equal(found, theirs)


@pytest.mark.parametrize("packed", [False, True])
def test_no_damage_to_a_mat_file_is_more_than_one_clear_error(packed):
    label = trees.boxes(30, 70, (7, 5, 5, 25, 60))
    whole, rng = mat_bytes(label, packed), np.random.default_rng(0)
    for length in range(0, len(whole) - 200, 7):
        with pytest.raises(ValueError):
            read_struct_matrix(whole[:length], "GTcls", "Segmentation")
    for _ in range(2000):
        bad = bytearray(whole)
        for place in rng.integers(124, min(len(whole), 900), rng.integers(1, 8)):
            bad[place] = rng.integers(256)
        try:
            assert read_struct_matrix(bytes(bad), "GTcls", "Segmentation").ndim == 2
        except ValueError as error:
            assert "\n" not in str(error)


def test_mat_files_of_other_kinds_are_refused():
    for data, match in (
        (b"", "no MATLAB 5 file"),
        (b"MATLAB 7.3 MAT-file" + b" " * 200, "-v7"),
        (mat_bytes(np.ones((3, 3)), False).replace(b"GTcls", b"GTxxx"), "no variable GTcls"),
        (mat_bytes(np.ones((3, 3), complex), False), "no plain numbers"),
    ):
        with pytest.raises(ValueError, match=match):
            read_struct_matrix(data, "GTcls", "Segmentation")


def test_a_packed_bomb_is_refused():
    body = zlib.compress(b"\0" * (65 << 20), 1)
    data = mat_bytes(np.ones((3, 3)), True)[:128] + struct.pack("<II", 15, len(body)) + body
    with pytest.raises(ValueError, match="far too many"):
        read_struct_matrix(data, "GTcls", "Segmentation")


def test_damaged_sbd_is_refused_with_the_file(tmp_path):
    trees.write_voc(tmp_path)
    trees.write_sbd(tmp_path)
    path = tmp_path / "benchmark_RELEASE/dataset/cls/2008_000002.mat"
    path.write_bytes(path.read_bytes()[:-500])
    photos = opened("voc2012", tmp_path, "train")
    with pytest.raises(
        ValueError,
        match="2008_000002.mat: expected SBD's struct GTcls .*ends within an element.*unpack SBD",
    ):
        photos.check(photos.keys, "any")
