"""The contract for labelled data that people bring: what a file means is honoured, or refused with
its name. Files are written here as other tools write them; truth is what was put in."""

import dataclasses
import io
import itertools
import json
import struct
import zlib

import numpy as np
import phototrees as trees
import pytest
import scipy.io
from PIL import Image, ImageCms
from pycocotools import mask as coco_mask

from ml import audit
from ml.params import BenchmarkParams, load_params
from ml.picture_files import (
    MAX_PIXELS,
    list_files,
    load_photo,
    open_mask,
    open_picture,
    picture_size,
)
from ml.pictures import decode_png, decode_rle, encode_png, encode_rle, run_lengths
from ml.realdata import check, open_source, read
from ml.realdata.class_lists import read_classes, read_palette
from ml.realdata.mat import read_struct_matrix
from ml.vocabulary import Vocabulary

YARD = Vocabulary("yard", ("person",), ("forklift", "hard hat"), {})
SCENE = trees.noise(24, 36, 1)
GREY = np.asarray(Image.fromarray(SCENE).convert("L"))


def benchmark(source: str) -> BenchmarkParams:
    return dataclasses.replace(load_params().benchmark, source=source, root="somewhere")


def opened(source: str, root, part: str = "test"):
    return open_source(benchmark(source), part, str(root))


def checked(source: str, root, vocabulary=None):
    photos = opened(source, root)
    check(photos, photos.keys, "any", vocabulary)
    return photos


@pytest.fixture
def own(tmp_path):
    return trees.write_folder(tmp_path / "yard")


# Photographs: orientation

FLAGS = range(1, 9)


def as_shown(stored: np.ndarray, flag: int) -> np.ndarray:
    """EXIF's table, by numpy: where the 0th row and column of the stored picture are shown."""
    return {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
            5: stored.swapaxes(0, 1), 6: stored[::-1].swapaxes(0, 1),
            7: stored[::-1, ::-1].swapaxes(0, 1), 8: stored[:, ::-1].swapaxes(0, 1)}[flag]


def save_turned(path, pixels: np.ndarray, flag: int, **how) -> None:
    exif = Image.Exif()
    exif[274] = flag
    Image.fromarray(pixels).save(path, exif=exif, **how)


@pytest.mark.parametrize("kind", ["png", "tif", "webp"])
@pytest.mark.parametrize("flag", FLAGS)
def test_a_picture_is_read_as_it_is_shown(tmp_path, kind, flag):
    path = tmp_path / f"x.{kind}"
    save_turned(path, SCENE, flag, **({"lossless": True} if kind == "webp" else {}))
    expected = as_shown(SCENE, flag)
    data, image = load_photo(path)
    assert np.array_equal(image, expected)
    assert np.array_equal(decode_png(data), expected)  # who opens the stored bytes sees the same
    size = picture_size(path)
    assert (size.height, size.width) == expected.shape[:2]


@pytest.mark.parametrize("flag", FLAGS)
def test_a_turned_jpeg_is_stored_turned_and_an_upright_one_as_it_is(tmp_path, flag):
    path = tmp_path / "x.jpg"
    save_turned(path, SCENE, flag, quality=95)
    plain = io.BytesIO()
    Image.fromarray(SCENE).save(plain, "JPEG", quality=95)
    expected = as_shown(np.asarray(Image.open(plain)), flag)
    data, image = load_photo(path)
    assert np.array_equal(image, expected) and np.array_equal(decode_png(data), expected)
    assert (data == path.read_bytes()) == (flag == 1)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_mask_is_turned_as_its_own_flag_says(tmp_path, kind, flag):
    path, label = tmp_path / f"x.{kind}", trees.boxes(24, 36, (1, 2, 3, 10, 30))
    save_turned(path, label, flag)
    assert np.array_equal(open_mask(path).labels(), as_shown(label, flag))


def test_a_mask_of_the_picture_as_stored_is_refused_and_says_why(own):
    trees.save_photo(own / "images" / "hall 1.jpg", 40, 60, 3)
    save_turned(own / "images" / "hall 1.jpg", trees.noise(40, 60, 3), 6)
    with pytest.raises(ValueError, match=r"hall 1.jpg is 40x60 pixels, its labels 60x40; expected "
                       r"one size. The picture is stored 60x40 with the EXIF orientation 6, and"):
        checked("folder", own)
    shown = np.rot90(trees.OWN_TRUTH["hall 1"], -1)
    Image.fromarray(np.ascontiguousarray(shown)).save(own / "masks" / "hall 1.png")
    photos = checked("folder", own)
    (sample,) = read(photos, ["hall 1"], YARD)
    assert sample.image.shape == (60, 40, 3) and np.array_equal(sample.label, shown)


def test_a_broken_exif_block_turns_nothing(tmp_path):
    for exif in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0"):
        Image.fromarray(SCENE).save(tmp_path / "x.png", exif=exif)
        assert np.array_equal(open_picture(tmp_path / "x.png"), SCENE)
        assert picture_size(tmp_path / "x.png").height == 24


# Photographs: colours and depth


def saved(tmp_path, image: Image.Image, name: str = "x.png", **how):
    image.save(tmp_path / name, **how)
    return tmp_path / name


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return share * pixels + (1 - share) * 255


ALPHA = trees.boxes(24, 36, (255, 0, 0, 24, 12), (100, 0, 12, 24, 24))


def photographs(tmp_path) -> dict:
    """name: (file, what a viewer shows)."""
    colour, level = Image.fromarray(SCENE), Image.fromarray(GREY)
    deep = (GREY.astype(np.uint16) * 257)
    one = GREY > 128
    palette = colour.quantize(64)
    clear = Image.fromarray(np.dstack([SCENE, ALPHA]))
    return {
        "rgb": (saved(tmp_path, colour, "a.png"), SCENE),
        "grey": (saved(tmp_path, level, "b.png"), rgb(GREY)),
        "16 bits": (saved(tmp_path, Image.fromarray(deep), "c.png"), rgb(GREY)),
        "16 bits in TIFF": (saved(tmp_path, Image.fromarray(deep), "c.tif"), rgb(GREY)),
        "16 bits, big end first": (saved(tmp_path, Image.fromarray(deep.astype(">u2")), "d.tif"),
                                   rgb(GREY)),
        "1 bit": (saved(tmp_path, Image.fromarray(one), "e.png"), rgb(one * np.uint8(255))),
        "palette": (saved(tmp_path, palette, "f.png"), np.asarray(palette.convert("RGB"))),
        "alpha": (saved(tmp_path, clear, "g.png"), on_white(SCENE, ALPHA)),
        "grey with alpha": (saved(tmp_path, Image.merge("LA", [level, Image.fromarray(ALPHA)]),
                                  "h.png"), on_white(rgb(GREY), ALPHA)),
        "palette with transparency": (
            saved(tmp_path, palette, "i.png", transparency=3),
            on_white(np.asarray(palette.convert("RGB")),
                     np.where(np.asarray(palette) == 3, 0, 255))),
        "bmp": (saved(tmp_path, colour, "j.bmp"), SCENE),
        "gif": (saved(tmp_path, palette, "k.gif"), np.asarray(palette.convert("RGB"))),
        "cmyk": (saved(tmp_path, colour.convert("CMYK"), "l.tif"), SCENE),
        "big TIFF": (saved(tmp_path, colour, "m.tif", compression="tiff_lzw"), SCENE),
    }


def test_every_depth_and_palette_is_what_a_viewer_shows(tmp_path):
    for name, (path, expected) in photographs(tmp_path).items():
        data, image = load_photo(path)
        assert image.dtype == np.uint8 and image.shape == SCENE.shape, name
        assert np.abs(image.astype(float) - expected).max() <= 1, name
        assert np.array_equal(decode_png(data), image), name
        assert np.array_equal(open_picture(path.read_bytes()), image), name


def test_a_profile_of_other_primaries_is_honoured(tmp_path):
    """A profile whose channels are swapped sRGB's: red in the file is green on the screen."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", profile, 128)[0]
    places = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 136 + 12 * i for i in range(count)}
    red, green = places[b"rXYZ"], places[b"gXYZ"]
    profile[red : red + 8], profile[green : green + 8] = (
        profile[green : green + 8], profile[red : red + 8])
    path = saved(tmp_path, Image.fromarray(SCENE), icc_profile=bytes(profile))
    data, image = load_photo(path)
    assert np.abs(image.astype(int) - SCENE[..., [1, 0, 2]]).max() <= 3
    assert np.array_equal(decode_png(data), image)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = saved(tmp_path, Image.fromarray(SCENE), icc_profile=srgb)
    assert load_photo(path)[0] == path.read_bytes()
    path = saved(tmp_path, Image.fromarray(GREY), icc_profile=srgb)  # of three channels, for one
    assert np.array_equal(open_picture(path), rgb(GREY))
    path = saved(tmp_path, Image.fromarray(SCENE), icc_profile=b"no profile")
    assert np.array_equal(open_picture(path), SCENE)


def pages(tmp_path, name: str):
    frames = [Image.fromarray(trees.noise(24, 36, i)) for i in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    return tmp_path / name


def png_of(width: int, height: int) -> bytes:
    """A few bytes that state a size, as a decompression bomb does."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(
            ">I", zlib.crc32(kind + body))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0,
                                                              0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


def refused(tmp_path) -> dict:
    deep = Image.fromarray(GREY.astype(np.uint16))
    whole = saved(tmp_path, Image.fromarray(SCENE), "whole.jpg").read_bytes()
    flat = saved(tmp_path, Image.fromarray(SCENE), "whole.png").read_bytes()
    flipped = bytearray(flat)
    flipped[len(flat) // 2] ^= 1
    files = {"bomb.png": png_of(20_000, 20_000), "big.png": png_of(10_000, 10_000),
             "half.jpg": whole[: len(whole) // 2], "half.png": flat[: len(flat) // 2],
             "flipped.png": bytes(flipped), "empty.jpg": b"", "text.jpg": b"not a picture",
             "heic.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 50}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return {
        **{tmp_path / name: "expected at most 89,478,485 pixels" for name in ("bomb.png",
                                                                             "big.png")},
        **{tmp_path / name: "cannot be decoded" for name in files if name[:3] != "big"
           and name[:4] != "bomb"},
        tmp_path / "nowhere.jpg": "cannot be decoded",
        saved(tmp_path, deep, "dark.png"): "would be black",
        saved(tmp_path, Image.fromarray(GREY.astype(np.float32)), "f.tif"): "whose range the file",
        saved(tmp_path, Image.fromarray(GREY.astype(np.int32)), "i.tif"): "whose range the file",
        pages(tmp_path, "pages.tif"): "holds 3 pictures",
        pages(tmp_path, "moves.gif"): "holds 3 pictures",
        pages(tmp_path, "moves.webp"): "holds 3 pictures",
        pages(tmp_path, "moves.png"): "holds 3 pictures",
    }


@pytest.mark.filterwarnings("error")
def test_what_is_no_single_whole_picture_is_refused_with_its_name(tmp_path):
    for path, match in refused(tmp_path).items():
        with pytest.raises(ValueError, match=match) as said:
            load_photo(path)
        assert str(path) in str(said.value) and "\n" not in str(said.value), path
    assert MAX_PIXELS == 89_478_485


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "bmp", "tif", "gif"])
def test_no_damage_is_a_traceback(tmp_path, kind):
    """Every length, and bytes changed at random: a picture, or one clear refusal."""
    whole = saved(tmp_path, Image.fromarray(SCENE), f"x.{kind}").read_bytes()
    assert open_picture(whole).shape == SCENE.shape
    rng = np.random.default_rng(0)
    damaged = [whole[:length] for length in range(0, len(whole), max(1, len(whole) // 60))]
    for _ in range(120):
        bad = bytearray(whole)
        for place in rng.integers(0, len(whole), rng.integers(1, 6)):
            bad[place] = rng.integers(256)
        damaged.append(bytes(bad))
    for data in damaged:
        try:
            image = open_picture(data, "x")
        except ValueError as error:
            assert str(error).startswith("x")
        else:
            assert image.dtype == np.uint8 and image.shape[2] == 3
        (tmp_path / f"y.{kind}").write_bytes(data)
        try:
            assert picture_size(tmp_path / f"y.{kind}").height > 0
        except ValueError as error:
            assert "y." in str(error)


# Masks: labels are samples


LABEL = trees.boxes(24, 36, (1, 2, 2, 20, 12), (2, 2, 14, 20, 30))


def png_grey(label: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2, 4, 8 or 16 bits a sample, written by hand."""
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(
            ">I", zlib.crc32(kind + body))
    height, width = label.shape
    digits = (label[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(digits.reshape(height, width * bits).astype(bool), axis=1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw))
            + chunk(b"IEND", b""))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_grey_sample_is_its_label_at_every_depth(tmp_path, bits):
    label = (LABEL > 0).astype(np.int64) if bits == 1 else LABEL.astype(np.int64)
    (tmp_path / "m.png").write_bytes(png_grey(label, bits))
    assert np.array_equal(open_mask(tmp_path / "m.png").labels(), label)


def test_masks_as_tools_write_them(tmp_path):
    trees.save_palette(tmp_path / "a.png", LABEL)
    palette = Image.open(tmp_path / "a.png")
    opaque = Image.merge("LA", [Image.fromarray(LABEL), Image.new("L", (36, 24), 255)])
    files = [tmp_path / "a.png", saved(tmp_path, palette, "b.png", transparency=0),
             saved(tmp_path, palette, "c.png", bits=2), saved(tmp_path, opaque, "d.png"),
             saved(tmp_path, Image.fromarray(LABEL.astype(np.uint16)), "e.tif"),
             saved(tmp_path, Image.fromarray(LABEL.astype(np.int32)), "f.tif"),
             saved(tmp_path, Image.fromarray(LABEL), "g.TIFF", compression="tiff_lzw")]
    for path in files:
        assert np.array_equal(open_mask(path).labels(), LABEL), path


@pytest.mark.parametrize("how, match", [
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
])
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
        Image.fromarray(np.where(label == 255, 65535, label.astype(int)).astype(np.uint16)).save(path)
    elif how == "above the classes":
        Image.fromarray(np.where(label == 1, 3, label).astype(np.uint8)).save(path)
    elif how == "negative":
        Image.fromarray(np.where(label == 255, -1, label.astype(int)).astype(np.int32)).save(path, "TIFF")
    elif how == "bomb":
        path.write_bytes(png_of(30_000, 30_000))
    elif how == "half":
        path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=match):
        checked("folder", own)


def test_colours_with_clear_background_and_a_colour_to_ignore(own):
    (own / "classes.txt").rename(own / "palette.txt").write_text(
        "\ufeff0 0 0 background\n200 0 0 forklift\n\n# ours\n0 0 90 hard hat\n224 224 192 void\n",
        encoding="utf-8")
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


# Which files belong together


def test_all_kinds_of_pictures_are_read_in_any_case(tmp_path):
    root = trees.write_folder(tmp_path / "yard")
    for i, suffix in enumerate(("JPG", "jpeg", "webp", "BMP", "tif", "TIFF", "PNG", "gif")):
        Image.fromarray(trees.noise(48, 48, i)).save(root / "images" / f"p{i}.{suffix}")
        Image.fromarray(trees.OWN_TRUTH["hall 3"]).save(
            root / "masks" / f"p{i}.{'PNG' if i % 2 else 'tif'}")
    photos = checked("folder", root, YARD)
    assert list(photos.keys) == sorted([*trees.OWN_TRUTH, *(f"p{i}" for i in range(8))])
    for sample in read(photos, photos.keys, YARD):
        assert sample.image.shape[:2] == sample.label.shape
        assert np.array_equal(decode_png(sample.data), sample.image)
    assert len(photos.photo_files()) == 11


@pytest.mark.parametrize("how, match", [
    ("mask without picture", "1 of 4 have no photograph in images/, first 'hall 9'"),
    ("picture without mask", "1 of 4 have no mask in masks/, first 'hall 9'"),
    ("two pictures", "share the stem 'hall 1'"),
    ("two masks", "share the stem 'hall 1'"),
    ("heic", "IMG_1.HEIC is of another kind; expected files .jpg.*Convert it, or move it away"),
    ("folder", "sub is a folder; expected files"),
    ("jpeg mask", "hall 9.jpg is of another kind; expected files .png, .tif, .tiff"),
    ("a list that leaves", r"have no photograph in images/, first '../secret'"),
])
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
    for folder, name in itertools.product(("images", "masks"), (
            "._hall 1.jpg", "._hall 1.png", ".DS_Store", "Thumbs.db", "desktop.ini")):
        (own / folder / name).write_bytes(b"\0\x05\x16\x07junk")
    (own / "images" / "__MACOSX").mkdir()
    photos = checked("folder", own)
    assert list(photos.keys) == list(trees.OWN_TRUTH)
    assert "yard test: 11 files that a system left there are skipped: .DS_Store" in (
        capsys.readouterr().err)
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
    with pytest.raises(ValueError, match='its labels are 0 and 255 alone, and 255 means "ignored"'
                       ".*a mask of one class holds 0 and 1; or list `255 255 255 <class>`"):
        checked("folder", own)
    (own / "classes.txt").unlink()
    (own / "palette.txt").write_text("255 255 255 forklift\n")  # the remedy
    photos = checked("folder", own)
    assert (photos.truth("hall 2")[10:40, 10:30] == 1).all()


def test_pictures_without_one_labelled_pixel_are_refused(own):
    for key, label in trees.OWN_TRUTH.items():
        Image.fromarray(np.zeros_like(label)).save(own / f"masks/{key}.png")
    with pytest.raises(ValueError, match="not one pixel is labelled with a class: expected some of "
                       "forklift, hard hat. Are the masks empty"):
        checked("folder", own)


def test_labels_of_no_class_of_the_vocabulary_are_refused(own, tmp_path):
    for key, label in trees.OWN_TRUTH.items():
        Image.fromarray(np.where(label == 2, 1, label)).save(own / f"masks/{key}.png")
    hats = Vocabulary("hats", ("person",), ("hard hat",), {})
    with pytest.raises(ValueError, match=r"no pixel is of a class of the vocabulary \(hard hat\); "
                       "the labels are of forklift"):
        checked("folder", own, hats)
    values = trees.write_coco(tmp_path / "coco")
    values["annotations"] = [a for a in values["annotations"] if a["id"] == 5]
    (tmp_path / "coco/annotations/instances_val2017.json").write_text(json.dumps(values))
    pets = Vocabulary("pets", ("cat", "dog"), (), {})
    with pytest.raises(ValueError, match="the labels are of zebra"):
        checked("coco2017", tmp_path / "coco", pets)


def test_names_match_whatever_their_case(own):
    (own / "classes.txt").write_text("Forklift\nHARD HAT\n")
    for sample in read(checked("folder", own, YARD), ["hall 3"], YARD):
        assert sample.entities == ("forklift", "hard hat")


CLASSES = {
    "a byte-order mark": (b"\xef\xbb\xbfforklift\r\npallet\r\n", ("forklift", "pallet")),
    "background first": (b"Background\nforklift\npallet\n", ("forklift", "pallet")),
    "labelme's": (b"__ignore__\n_background_\nforklift\npallet", ("forklift", "pallet")),
    "blank lines at the end": (b"forklift\npallet\n\n \n", ("forklift", "pallet")),
    "a comment": (b"# ours\nforklift\n", ("forklift",)),
    "names with spaces and signs": ("men's shoe\nC++\nStraße\n".encode(),
                                    ("men's shoe", "C++", "Straße")),
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
    "cvat": (b"# label:color_rgb:parts:actions\nforklift:51,221,255::\n",
             "line 2: .*CVAT's labelmap.txt; write `51 221 255 forklift` into palette.txt"),
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


@pytest.mark.parametrize("line, match", [
    ("1 2 forklift", "line 2: expected `red green blue class`"),
    ("256 0 0 forklift", "line 2: expected"),
    ("0 0 0 forklift", "black is background"),
    ("9 9 9 background", "background is black"),
    ("1 1 1 pallet", "line 2: colour .* is listed twice"),
    ("2 2 2 Hat", "repeated: .*'hat'"),
    ("forklift:51,221,255::", "line 2: .*write `51 221 255 forklift` into palette.txt"),
    ("² 0 0 forklift", "line 2: expected"),
])
def test_palettes_that_say_nothing_clear_are_refused(tmp_path, line, match):
    (tmp_path / "palette.txt").write_text(f"1 1 1 hat\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=match):
        read_palette(tmp_path / "palette.txt")


# COCO


BOX = trees.rectangle(10, 10, 20, 20)
TEXT = coco_mask.encode(np.asfortranarray(trees.boxes(40, 60, (1, 3, 3, 30, 30))))[
    "counts"].decode()
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
        values if isinstance(values, str) else json.dumps(values))


@pytest.mark.parametrize("name", BAD_SHAPES)
def test_shapes_that_are_none_are_refused_with_their_annotation(coco, name):
    root, values = coco
    shape, match = BAD_SHAPES[name]
    values["annotations"] += [trees.annotation(71, 139, 17, shape),
                              trees.annotation(72, 139, 17, shape)]
    rewrite(root, values)
    with pytest.raises(ValueError, match=f"instances_val2017.json: 2 of 7 annotations cannot be "
                       f"used: annotation 71: .*{match}.*annotation 72: .*Mend or remove") as said:
        checked("coco2017", root)
    assert len(str(said.value)) < 900 and "\n" not in str(said.value)


def test_a_shape_that_is_missing_is_refused(coco):
    root, values = coco
    del values["annotations"][0]["segmentation"]
    rewrite(root, values)
    with pytest.raises(ValueError, match="annotation 1: segmentation None"):
        checked("coco2017", root)


@pytest.mark.parametrize("shape", [
    {"size": [40, 60], "counts": TEXT}, trees.runs(trees.boxes(40, 60, (1, 3, 3, 30, 30))),
    trees.rectangle(3, 3, 30, 30), [[1, 1, 2, 2], *trees.rectangle(3, 3, 30, 30)],
    [*trees.rectangle(3, 3, 30, 20), *trees.rectangle(3, 20, 30, 30)]])
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


@pytest.mark.parametrize("text, match", [
    ("[]", "expected the lists categories, images, annotations"),
    ("null", "expected the lists"),
    ('{"images": [], "annotations": []}', "expected the lists"),
    ('{"categories": 1, "images": [], "annotations": []}', "expected the lists"),
    ('{"categories": [1], "images": [], "annotations": []}', "expected categories with id and"),
    ('{"categories": [{}], "images": [], "annotations": []}', "expected categories with id and"),
    ("[" * 100_000, "is not COCO's annotations"),
    ("", "is not COCO's annotations"),
])
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
    values["annotations"] = [trees.annotation(1, 139, 17, [[.1, .1, .5, .1, .5, .5]])]
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
        "000000000285.jpg", "000000000632.jpg", "000000000139.PNG"]


def test_run_lengths_agree_with_pycocotools():
    rng = np.random.default_rng(0)
    for share in (0, .02, .5, 1):
        mask = rng.random((37, 53)) < share
        text = encode_rle(mask)
        runs = run_lengths(json.loads(text)["counts"])
        assert runs == trees.runs(mask)["counts"] and np.array_equal(decode_rle(text), mask)
    whole = json.loads(encode_rle(rng.random((37, 53)) < .5))
    for counts in (whole["counts"][:-3], whole["counts"] + "9", "~~~", "o" * 40, ""):
        with pytest.raises(ValueError, match="expected"):
            decode_rle(json.dumps(whole | {"counts": counts}))


# SBD's .mat


def mat_bytes(label: np.ndarray, packed: bool) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"other": np.arange(5.0), "GTcls": {
        "Boundaries": np.zeros((20, 1), object), "Segmentation": label,
        "CategoriesPresent": np.unique(label[label > 0])}}, do_compression=packed)
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
    for data, match in ((b"", "no MATLAB 5 file"), (b"MATLAB 7.3 MAT-file" + b" " * 200, "-v7"),
                        (mat_bytes(np.ones((3, 3)), False).replace(b"GTcls", b"GTxxx"),
                         "no variable GTcls"),
                        (mat_bytes(np.ones((3, 3), complex), False), "no plain numbers")):
        with pytest.raises(ValueError, match=match):
            read_struct_matrix(data, "GTcls", "Segmentation")


def test_a_packed_bomb_is_refused():
    body = zlib.compress(b"\0" * (100 << 20))
    data = mat_bytes(np.ones((3, 3)), True)[:128] + struct.pack("<II", 15, len(body)) + body
    with pytest.raises(ValueError, match="far too many"):
        read_struct_matrix(data, "GTcls", "Segmentation")


def test_damaged_sbd_is_refused_with_the_file(tmp_path):
    trees.write_voc(tmp_path)
    trees.write_sbd(tmp_path)
    path = tmp_path / "benchmark_RELEASE/dataset/cls/2008_000002.mat"
    path.write_bytes(path.read_bytes()[:-500])
    photos = opened("voc2012", tmp_path, "train")
    with pytest.raises(ValueError, match="2008_000002.mat: expected SBD's struct GTcls .*ends "
                       "within an element.*unpack SBD"):
        check(photos, photos.keys, "any")


# The audit sheet's ticks


def test_a_class_that_is_called_all_is_counted_alone():
    ticks = [{"entity": "all", "verdict": "right"}, {"entity": "dog", "verdict": "wrong mask"}]
    assert [(row["class"], row["judged"]) for row in audit.precision(ticks)] == [
        ("all", 1), ("dog", 1), ("all", 2)]


@pytest.mark.parametrize("data", [
    b"[]", b"{}", b"null", b"\xff\xfe", b"", b"[" * 100_000,
    b'{"ticks": 3, "synthetic_dataset": "x"}', b'{"ticks": {"a": 1}, "synthetic_dataset": "x"}',
    b'{"ticks": [[]], "synthetic_dataset": "x"}',
    b'{"ticks": [{"key": [], "entity": {}, "verdict": 1}], "synthetic_dataset": "x"}'])
def test_files_that_are_no_ticks_are_one_line(tmp_path, data):
    (tmp_path / "ticks.json").write_bytes(data)
    with pytest.raises(ValueError, match="ticks.json is no saved audit sheet") as said:
        audit.read_ticks(tmp_path / "ticks.json", None)
    assert "\n" not in str(said.value)


def test_pictures_given_as_bytes_are_named(tmp_path):
    with pytest.raises(ValueError, match="^picture 3 is no picture"):
        open_picture(b"x", "picture 3")
    with pytest.raises(ValueError, match="^picture 3 is no picture"):
        open_picture(None, "picture 3")
    assert np.array_equal(open_picture(encode_png(GREY)), rgb(GREY))
