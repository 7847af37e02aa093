"""Photographs that people bring are what a viewer shows: turned, scaled, on white, in sRGB; what is
no single whole picture is refused with its name."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from ml.images.decoding import MAX_PIXELS
from ml.images.photographs import load_photo, open_picture, picture_size
from ml.images.png import decode_png, encode_png
from ml.settings.profile import ROOT
from tests.builders import phototrees as trees
from tests.builders.foreignpictures import (
    FLAGS,
    GREY,
    SCENE,
    as_shown,
    png,
    png_bomb,
    save_turned,
    saved,
)

# Orientation


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


def test_a_cmyk_jpeg_has_the_pictures_colours(tmp_path):
    path = saved(tmp_path, Image.fromarray(SCENE).convert("CMYK"), "x.jpg", quality=100)
    assert np.abs(open_picture(path).astype(int) - SCENE).mean() < 3


def test_a_cameras_jpeg_with_previews_is_its_first_picture(tmp_path):
    first, preview = Image.fromarray(SCENE), Image.fromarray(trees.noise(6, 9, 2))
    path = saved(
        tmp_path, first, "x.jpg", format="MPO", save_all=True, append_images=[preview], quality=95
    )
    alone = saved(tmp_path, first, "alone.jpg", quality=95)
    data, image = load_photo(path)
    assert Image.open(path).format == "MPO" and data == path.read_bytes()
    assert np.array_equal(image, open_picture(alone)) and np.array_equal(decode_png(data), image)


def test_only_the_contracts_module_opens_picture_files():
    """`ml.images.png.decode_png` reads the PNG bytes that we wrote."""
    found = {
        path.relative_to(ROOT).as_posix()
        for folder in ("ml", "orchestration")
        for path in (ROOT / folder).rglob("*.py")
        if any(word in path.read_text() for word in ("Image.open(", "imread(", "loadmat("))
    }
    assert found == {"ml/images/decoding.py"}


def test_a_broken_exif_block_turns_nothing(tmp_path):
    for exif in (b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0"):
        Image.fromarray(SCENE).save(tmp_path / "x.png", exif=exif)
        assert np.array_equal(open_picture(tmp_path / "x.png"), SCENE)
        assert picture_size(tmp_path / "x.png").height == 24


# Colours and depth


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def on_white(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return share * pixels + (1 - share) * 255


ALPHA = trees.boxes(24, 36, (255, 0, 0, 24, 12), (100, 0, 12, 24, 24))


def photographs(tmp_path) -> dict:
    """name: (file, what a viewer shows)."""
    colour, level = Image.fromarray(SCENE), Image.fromarray(GREY)
    deep = GREY.astype(np.uint16) * 257
    one = GREY > 128
    palette = colour.quantize(64)
    clear = Image.fromarray(np.dstack([SCENE, ALPHA]))
    return {
        "rgb": (saved(tmp_path, colour, "a.png"), SCENE),
        "grey": (saved(tmp_path, level, "b.png"), rgb(GREY)),
        "16 bits": (saved(tmp_path, Image.fromarray(deep), "c.png"), rgb(GREY)),
        "16 bits in TIFF": (saved(tmp_path, Image.fromarray(deep), "c.tif"), rgb(GREY)),
        "16 bits, big end first": (
            saved(tmp_path, Image.fromarray(deep.astype(">u2")), "d.tif"),
            rgb(GREY),
        ),
        "1 bit": (saved(tmp_path, Image.fromarray(one), "e.png"), rgb(one * np.uint8(255))),
        "palette": (saved(tmp_path, palette, "f.png"), np.asarray(palette.convert("RGB"))),
        "alpha": (saved(tmp_path, clear, "g.png"), on_white(SCENE, ALPHA)),
        "grey with alpha": (
            saved(tmp_path, Image.merge("LA", [level, Image.fromarray(ALPHA)]), "h.png"),
            on_white(rgb(GREY), ALPHA),
        ),
        "palette with transparency": (
            saved(tmp_path, palette, "i.png", transparency=3),
            on_white(
                np.asarray(palette.convert("RGB")), np.where(np.asarray(palette) == 3, 0, 255)
            ),
        ),
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
        profile[green : green + 8],
        profile[red : red + 8],
    )
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


def refused(tmp_path) -> dict:
    deep = Image.fromarray(GREY.astype(np.uint16))
    whole = saved(tmp_path, Image.fromarray(SCENE), "whole.jpg").read_bytes()
    flat = saved(tmp_path, Image.fromarray(SCENE), "whole.png").read_bytes()
    flipped = bytearray(flat)
    flipped[len(flat) // 2] ^= 1
    files = {
        "bomb.png": png_bomb(20_000, 20_000),
        "big.png": png_bomb(10_000, 10_000),
        "half.jpg": whole[: len(whole) // 2],
        "half.png": flat[: len(flat) // 2],
        "flipped.png": bytes(flipped),
        "empty.jpg": b"",
        "text.jpg": b"not a picture",
        "dark16.png": png(
            36,
            24,
            16,
            b"".join(b"\0" + row.tobytes() for row in np.repeat(GREY, 3, 1).astype(">u2")),
            colour=2,
        ),
        "heic.jpg": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 50,
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return {
        **{
            tmp_path / name: "expected at most 89,478,485 pixels"
            for name in ("bomb.png", "big.png")
        },
        **{
            tmp_path / name: "cannot be decoded"
            for name in files
            if name[:3] != "big" and name[:4] not in ("bomb", "dark")
        },
        tmp_path / "dark16.png": "would be black",
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


def test_pictures_given_as_bytes_are_named(tmp_path):
    with pytest.raises(ValueError, match="^picture 3 is no picture"):
        open_picture(b"x", "picture 3")
    (tmp_path / "secret.png").write_bytes(encode_png(GREY))
    for given in (None, 7, str(tmp_path / "secret.png"), SCENE):  # nor does a text open a file
        with pytest.raises(ValueError, match="^picture 3: expected the bytes of a picture file"):
            open_picture(given, "picture 3")
    assert np.array_equal(open_picture(encode_png(GREY)), rgb(GREY))
