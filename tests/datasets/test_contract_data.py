"""A user's labelled folder: what masks, class lists and names mean is honoured, or refused with the
place. Files are written as other tools write them; truth is what was put in."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from ml.datasets import photos as photos_module
from ml.datasets.class_lists import read_classes, read_palette
from ml.datasets.listing import list_files
from ml.images.label_maps import open_mask
from ml.images.png import decode_png
from ml.pipeline import audit
from ml.words.vocabulary import Vocabulary
from tests.builders import phototrees as trees
from tests.builders.foreignpictures import (
    FLAGS,
    YARD,
    as_shown,
    checked,
    opened,
    png_bomb,
    png_grey,
    saved,
)
from tests.builders.foreignpictures import save_turned as turned

# Masks: labels are samples


LABEL = trees.boxes(24, 36, (1, 2, 2, 20, 12), (2, 2, 14, 20, 30))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_sample_is_its_label_at_every_depth(tmp_path, bits):
    label = (LABEL > 0).astype(np.int64) if bits == 1 else LABEL.astype(np.int64)
    (tmp_path / "m.png").write_bytes(png_grey(label, bits))
    assert np.array_equal(open_mask(tmp_path / "m.png").labels(), label)


def test_masks_as_tools_write_them(tmp_path):
    trees.save_palette(tmp_path / "a.png", LABEL)
    palette = Image.open(tmp_path / "a.png")
    opaque = Image.merge("LA", [Image.fromarray(LABEL), Image.new("L", (36, 24), 255)])
    files = [
        tmp_path / "a.png",
        saved(tmp_path, palette, "b.png", transparency=0),
        saved(tmp_path, palette, "c.png", bits=2),
        saved(tmp_path, opaque, "d.png"),
        saved(tmp_path, Image.fromarray(LABEL.astype(np.uint16)), "e.tif"),
        saved(tmp_path, Image.fromarray(LABEL.astype(np.int32)), "f.tif"),
        saved(tmp_path, Image.fromarray(LABEL), "g.TIFF", compression="tiff_lzw"),
    ]
    for path in files:
        assert np.array_equal(open_mask(path).labels(), LABEL), path


@pytest.mark.parametrize(
    "how, match",
    [
        ("rgb", "got mode RGB; export it as an indexed PNG, or list its colours in palette.txt"),
        ("rgba", "got mode RGBA"),
        ("half clear", "got mode LA"),
        ("float", "got mode F"),
        ("jpeg", "cannot be decoded as PNG, TIFF"),
        ("pages", "holds 2 pictures"),
        ("inverted", "white is stored as 0 in this TIFF"),
        ("65535", r"holds the labels \[65535\]; expected 0 \(background\), 255"),
        ("above the classes", r"holds the labels \[3\].* 1..2 \(2 classes\)"),
        ("negative", r"holds the labels \[-1\]"),
        ("bomb", "expected at most 89,478,485 pixels"),
        ("half", "hall 1.png cannot be decoded"),
    ],
)
def test_masks_that_say_no_labels_are_refused(own, how, match):
    path, label = own / "masks" / "hall 1.png", trees.OWN_TRUTH["hall 1"]
    image = Image.fromarray(label)
    if how == "rgb":
        image.convert("RGB").save(path)
    elif how == "rgba":
        image.convert("RGBA").save(path)
    elif how == "half clear":
        Image.merge("LA", [image, image.point(lambda v: 100)]).save(path)
    elif how == "float":
        Image.fromarray(label.astype(np.float32)).save(path, "TIFF")
    elif how == "jpeg":
        image.save(path, "JPEG")
    elif how == "pages":
        image.save(path, "TIFF", save_all=True, append_images=[image])
    elif how == "inverted":
        image.save(path, "TIFF", tiffinfo={262: 0})
    elif how == "65535":
        wide = np.where(label == 255, 65535, label.astype(np.uint16))
        Image.fromarray(wide.astype(np.uint16)).save(path)
    elif how == "above the classes":
        Image.fromarray(np.where(label == 1, 3, label).astype(np.uint8)).save(path)
    elif how == "negative":
        signed = np.where(label == 255, -1, label.astype(np.int32))
        Image.fromarray(signed.astype(np.int32)).save(path, "TIFF")
    elif how == "bomb":
        path.write_bytes(png_bomb(30_000, 30_000))
    elif how == "half":
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=match):
        checked("folder", own)


@pytest.mark.parametrize(
    "greys, refused",
    [
        ((0, 1, 2), False),  # indices, shown as themselves
        ((0, 127, 254), False),  # indices, shown as a ramp; 127 is no label of two classes
        ((0, 255, 255), False),
        ((0, 2, 1), True),
        ((1, 0, 2), True),
        ((0, 2, 255), True),
    ],
)
def test_a_grey_palette_that_may_hold_the_labels_is_refused(own, greys, refused):
    """Tools that shrink PNGs turn grey levels into indices of a palette, in any order."""
    label = trees.OWN_TRUTH["hall 3"]
    trees.save_palette(
        own / "masks" / "hall 3.png", label, {i: (grey,) * 3 for i, grey in enumerate(greys)}
    )
    if refused:
        with pytest.raises(
            ValueError, match="hall 3.png: .* palette of greys that are labels, too"
        ):
            checked("folder", own)
    else:
        assert np.array_equal(checked("folder", own).truth("hall 3"), label)


def test_colours_with_clear_background_and_a_colour_to_ignore(own):
    (own / "classes.txt").rename(own / "palette.txt").write_text(
        "\ufeff0 0 0 background\n200 0 0 forklift\n\n# ours\n0 0 90 hard hat\n224 224 192 void\n",
        encoding="utf-8",
    )
    table = np.zeros((256, 4), np.uint8)
    table[[1, 2, 255]] = (200, 0, 0, 255), (0, 0, 90, 255), (224, 224, 192, 255)
    table[0] = 77, 77, 77, 0  # what is hidden has some colour
    for key, label in trees.OWN_TRUTH.items():
        Image.fromarray(table[label]).save(own / "masks" / f"{key}.png")
    photos = checked("folder", own, YARD)
    for key, label in trees.OWN_TRUTH.items():
        assert np.array_equal(photos.truth(key), label)
    table[1, 3] = 128  # a soft edge
    Image.fromarray(table[trees.OWN_TRUTH["hall 1"]]).save(own / "masks" / "hall 1.png")
    with pytest.raises(ValueError, match="hall 1.png holds the colours .* does not list"):
        photos.truth("hall 1")


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_mask_is_turned_as_its_own_flag_says(tmp_path, kind, flag):
    path, label = tmp_path / f"x.{kind}", trees.boxes(24, 36, (1, 2, 3, 10, 30))
    turned(path, label, flag)
    assert np.array_equal(open_mask(path).labels(), as_shown(label, flag))


def test_a_mask_of_the_picture_as_stored_is_refused_and_says_why(own):
    trees.save_photo(own / "images" / "hall 1.jpg", 40, 60, 3)
    turned(own / "images" / "hall 1.jpg", trees.noise(40, 60, 3), 6)
    with pytest.raises(
        ValueError,
        match=r"hall 1.jpg is 40x60 pixels, its labels 60x40; expected "
        r"one size. The picture is stored 60x40 with the EXIF orientation 6, and",
    ):
        checked("folder", own)
    shown = np.rot90(trees.OWN_TRUTH["hall 1"], -1)
    Image.fromarray(np.ascontiguousarray(shown)).save(own / "masks" / "hall 1.png")
    photos = checked("folder", own)
    (sample,) = photos.read(["hall 1"], YARD)
    assert sample.image.shape == (60, 40, 3) and np.array_equal(sample.label, shown)


# Which files belong together


def test_all_kinds_of_pictures_are_read_in_any_case(tmp_path):
    root = trees.write_folder(tmp_path / "yard")
    for i, suffix in enumerate(("JPG", "jpeg", "webp", "BMP", "tif", "TIFF", "PNG", "gif")):
        Image.fromarray(trees.noise(48, 48, i)).save(root / "images" / f"p{i}.{suffix}")
        Image.fromarray(trees.OWN_TRUTH["hall 3"]).save(
            root / "masks" / f"p{i}.{'PNG' if i % 2 else 'tif'}"
        )
    photos = checked("folder", root, YARD)
    assert list(photos.keys) == sorted([*trees.OWN_TRUTH, *(f"p{i}" for i in range(8))])
    for sample in photos.read(photos.keys, YARD):
        assert sample.image.shape[:2] == sample.label.shape
        assert np.array_equal(decode_png(sample.data), sample.image)
    assert len(photos.photo_files()) == 11


@pytest.mark.parametrize(
    "how, match",
    [
        ("mask without picture", "1 of 4 have no photograph in images/, first 'hall 9'"),
        ("picture without mask", "1 of 4 have no mask in masks/, first 'hall 9'"),
        ("two pictures", "share the stem 'hall 1'"),
        ("two masks", "share the stem 'hall 1'"),
        ("heic", "IMG_1.HEIC is of another kind; expected files .jpg.*Convert it, or move it away"),
        ("folder", "sub is a folder; expected files"),
        ("jpeg mask", "hall 9.jpg is of another kind; expected files .png, .tif, .tiff"),
        ("a list that leaves", r"have no photograph in images/, first '../secret'"),
    ],
)
def test_files_that_would_be_left_out_unsaid_are_refused(own, how, match):
    picture = own / "images" / "hall 1.jpg"
    if how == "mask without picture":
        (own / "masks" / "hall 9.png").write_bytes((own / "masks" / "hall 1.png").read_bytes())
    elif how == "picture without mask":
        (own / "images" / "hall 9.jpg").write_bytes(picture.read_bytes())
    elif how == "two pictures":
        (own / "images" / "hall 1.webp").write_bytes(picture.read_bytes())
    elif how == "two masks":
        (own / "masks" / "hall 1.tif").write_bytes((own / "masks" / "hall 1.png").read_bytes())
    elif how == "heic":
        (own / "images" / "IMG_1.HEIC").write_bytes(b"x")
    elif how == "folder":
        (own / "images" / "sub").mkdir()
    elif how == "jpeg mask":
        (own / "masks" / "hall 9.jpg").write_bytes(picture.read_bytes())
    elif how == "a list that leaves":
        (own / "secret.jpg").write_bytes(picture.read_bytes())
        (own / "secret.png").write_bytes((own / "masks" / "hall 1.png").read_bytes())
        (own / "test.txt").write_text("../secret\n")
    with pytest.raises(ValueError, match=match):
        checked("folder", own)


def test_what_systems_leave_is_skipped_and_said(own, capsys):
    for folder, name in itertools.product(
        ("images", "masks"),
        ("._hall 1.jpg", "._hall 1.png", ".DS_Store", "Thumbs.db", "desktop.ini"),
    ):
        (own / folder / name).write_bytes(b"\0\x05\x16\x07junk")
    (own / "images" / "__MACOSX").mkdir()
    photos = checked("folder", own)
    assert list(photos.keys) == list(trees.OWN_TRUTH)
    assert "yard test: 11 files that a system left there are skipped: .DS_Store" in (
        capsys.readouterr().err
    )
    found, skipped = list_files(own / "masks", (".png",))
    assert list(found) == list(trees.OWN_TRUTH) and len(skipped) == 5


def test_names_in_both_forms_of_unicode_are_one(own):
    (own / "images" / "hall 1.jpg").rename(own / "images" / "cafe\u0301.jpg")  # as macOS writes it
    (own / "masks" / "hall 1.png").rename(own / "masks" / "caf\u00e9.png")
    (own / "test.txt").write_text("\ufeffcafe\u0301.JPG\r\nhall 2\r\n", encoding="utf-8")
    assert checked("folder", own).keys == ("caf\u00e9", "hall 2")


# What the labels mean


def test_a_class_that_is_only_255_is_refused(own):
    (own / "classes.txt").write_text("forklift\n")
    for key, label in trees.OWN_TRUTH.items():
        Image.fromarray(np.where(label, 255, 0).astype(np.uint8)).save(own / f"masks/{key}.png")
    with pytest.raises(
        ValueError,
        match='its labels are 0 and 255 alone, and 255 means "ignored"'
        ".*a mask of one class holds 0 and 1.*, or list `255 255 255 <class>`",
    ):
        checked("folder", own)
    (own / "classes.txt").unlink()
    (own / "palette.txt").write_text("255 255 255 forklift\n")  # the remedy
    photos = checked("folder", own)
    assert (photos.truth("hall 2")[10:40, 10:30] == 1).all()


def test_pictures_without_one_labelled_pixel_are_refused(own):
    for key, label in trees.OWN_TRUTH.items():
        Image.fromarray(np.zeros_like(label)).save(own / f"masks/{key}.png")
    with pytest.raises(
        ValueError,
        match="not one pixel is labelled with a class: expected some of "
        "forklift, hard hat. Are the masks empty",
    ):
        checked("folder", own)


def test_labels_of_no_class_of_the_vocabulary_are_refused(own, tmp_path):
    for key, label in trees.OWN_TRUTH.items():
        Image.fromarray(np.where(label == 2, 1, label)).save(own / f"masks/{key}.png")
    hats = Vocabulary("hats", ("person",), ("hard hat",), {})
    with pytest.raises(
        ValueError,
        match=r"no pixel is of a class of the vocabulary \(hard hat\); "
        "the labels are of forklift",
    ):
        checked("folder", own, hats)
    values = trees.write_coco(tmp_path / "coco")
    values["annotations"] = [a for a in values["annotations"] if a["id"] == 5]
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(json.dumps(values))
    pets = Vocabulary("pets", ("cat", "dog"), (), {})
    with pytest.raises(ValueError, match="the labels are of zebra"):
        checked("coco2017", tmp_path / "coco", pets)


def test_masks_of_255_among_others_are_said(own, capsys):
    label = np.where(trees.OWN_TRUTH["hall 1"], 255, 0).astype(np.uint8)
    Image.fromarray(label).save(own / "masks" / "hall 1.png")
    checked("folder", own)
    assert "1 of 3 label maps hold 255 (ignored) and no class, first 'hall 1'" in (
        capsys.readouterr().err
    )


def test_names_match_whatever_their_case(own):
    (own / "classes.txt").write_text("Forklift\nHARD HAT\n")
    for sample in checked("folder", own, YARD).read(["hall 3"], YARD):
        assert sample.entities == ("forklift", "hard hat")


def test_a_class_that_is_all_but_one_of_ours_is_refused(own):
    """`forklifts` for forklift: every one of its pixels was ignored, with exit code 0."""
    (own / "classes.txt").write_text("forklifts\nhard hat\n")
    with pytest.raises(
        ValueError,
        match="its class 'forklifts' is none of vocabulary.*'forklift' it does not label",
    ):
        checked("folder", own, YARD)


def test_classes_that_are_ignored_are_said(own, capsys):
    (own / "classes.txt").write_text("forklift\nspoon\n")
    checked("folder", own, YARD)
    assert "not in the vocabulary, so ignored (255): 'spoon'" in capsys.readouterr().err


CLASSES = {
    "a byte-order mark": (b"\xef\xbb\xbfforklift\r\npallet\r\n", ("forklift", "pallet")),
    "background first": (b"Background\nforklift\npallet\n", ("forklift", "pallet")),
    "labelme's": (b"__ignore__\n_background_\nforklift\npallet", ("forklift", "pallet")),
    "blank lines at the end": (b"forklift\npallet\n\n \n", ("forklift", "pallet")),
    "a comment": (b"# ours\nforklift\n", ("forklift",)),
    "names with spaces and signs": (
        "men's shoe\nC++\nStraße\n".encode(),
        ("men's shoe", "C++", "Straße"),
    ),
}
NO_CLASSES = {
    "twice": (b"hat\npallet\nHat\n", r"each once; got 3, repeated: \['hat'\]"),
    "none": (b"\n", "expected 1 to 254 classes"),
    "too many": (b"".join(b"c%d\n" % i for i in range(255)), "expected 1 to 254 classes"),
    "blank between": (b"forklift\n\npallet\n", "line 2: blank between classes"),
    "background later": (b"aeroplane\nbackground\n", "line 2: 'background' is no class here"),
    "unlabeled first": (b"unlabeled\nforklift\n", "line 1: 'unlabeled' is no class here; label 0"),
    "ignore alone first": (b"__ignore__\nforklift\n", "line 1: '__ignore__' is no class"),
    "numbers": (b"0 background\n1 forklift\n", "line 1: '0 background' begins with a number"),
    "cvat": (
        b"# label:color_rgb:parts:actions\nforklift:51,221,255::\n",
        "line 2: .*CVAT's labelmap.txt; write `51 221 255 forklift` into palette.txt",
    ),
    "a table": (b"forklift\t1\n", "line 1: .*holds a tab"),
    "latin": ("Stra\u00dfe\n".encode("latin-1"), "line 1: not UTF-8"),
    "utf-16": ("forklift\n".encode("utf-16"), "not UTF-8"),
    "binary": (b"fork\0lift\n", "line 1: .*control character"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_class_lists_of_other_tools_are_understood(tmp_path, name):
    data, expected = CLASSES[name]
    (tmp_path / "classes.txt").write_bytes(data)
    assert read_classes(tmp_path / "classes.txt") == dict(enumerate(expected, start=1))


@pytest.mark.parametrize("name", NO_CLASSES)
def test_class_lists_that_would_shift_labels_are_refused(tmp_path, name):
    data, match = NO_CLASSES[name]
    (tmp_path / "classes.txt").write_bytes(data)
    with pytest.raises(ValueError, match=match) as said:
        read_classes(tmp_path / "classes.txt")
    assert "classes.txt" in str(said.value)


@pytest.mark.parametrize(
    "line, match",
    [
        ("1 2 forklift", "line 2: expected `red green blue class`"),
        ("256 0 0 forklift", "line 2: expected"),
        ("0 0 0 forklift", "black is background"),
        ("9 9 9 background", "background is black"),
        ("1 1 1 pallet", "line 2: colour .* is listed twice"),
        ("2 2 2 Hat", "repeated: .*'hat'"),
        ("forklift:51,221,255::", "line 2: .*write `51 221 255 forklift` into palette.txt"),
        ("² 0 0 forklift", "line 2: expected"),
    ],
)
def test_palettes_that_say_nothing_clear_are_refused(tmp_path, line, match):
    (tmp_path / "palette.txt").write_text(f"1 1 1 hat\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=match):
        read_palette(tmp_path / "palette.txt")


def test_what_an_older_reader_made_is_made_again(own, monkeypatch):
    first = opened("folder", own).digest()
    assert opened("folder", own).digest() == first
    monkeypatch.setattr(photos_module, "READER", photos_module.READER + 1)
    assert opened("folder", own).digest() != first


# The audit sheet's ticks


def test_a_class_that_is_called_all_is_counted_alone():
    ticks = [{"entity": "all", "verdict": "right"}, {"entity": "dog", "verdict": "wrong mask"}]
    assert [(row["class"], row["judged"]) for row in audit.precision(ticks)] == [
        ("all", 1),
        ("dog", 1),
        ("all", 2),
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"",
        b"[" * 100_000,
        b'{"ticks": 3, "synthetic_dataset": "x"}',
        b'{"ticks": {"a": 1}, "synthetic_dataset": "x"}',
        b'{"ticks": [[]], "synthetic_dataset": "x"}',
        b'{"ticks": [{"key": [], "entity": {}, "verdict": 1}], "synthetic_dataset": "x"}',
    ],
)
def test_files_that_are_no_ticks_are_one_line(tmp_path, data):
    (tmp_path / "ticks.json").write_bytes(data)
    with pytest.raises(ValueError, match="ticks.json is no saved audit sheet") as said:
        audit.read_ticks(tmp_path / "ticks.json", None)
    assert "\n" not in str(said.value)
