"""PNG, run-length masks, facts, hashes, overlays and contact sheets, against hand-made truth."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from ml.drawn_world.world import draw_scene, scene_seed
from ml.images.contact_sheet import MAX_SHEET_BYTES, contact_sheet, spread
from ml.images.facts import difference_hash, picture_facts, pixel_digest
from ml.images.near_copies import SAME_DIFFERENCE, close_pairs, hamming, same_picture
from ml.images.overlays import MASK_COLOURS, PALETTE, label_overlay, overlay
from ml.images.png import decode_png, encode_png
from ml.images.run_lengths import decode_rle, encode_rle


def grey(levels) -> np.ndarray:
    """A grey picture uint8 (H,W,3) from rows of levels."""
    return np.repeat(np.asarray(levels, np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(scene_seed("test", 1000 + i)) for i in range(300)]


@pytest.mark.parametrize("shape", [(5, 7, 3), (5, 7), (1, 1, 3), (64, 64)])
def test_png_round_trip(shape):
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    assert np.array_equal(decode_png(encode_png(array)), array)


def test_palette_png_gives_indices_as_vocs_label_maps_need():
    labels = np.array([[0, 15], [255, 3]], np.uint8)
    image = Image.fromarray(labels)
    image.putpalette(PALETTE.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    assert np.array_equal(decode_png(buffer.getvalue()), labels)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_encode_refuses_what_is_no_picture(bad):
    with pytest.raises(ValueError, match="expected uint8"):
        encode_png(bad)


@pytest.mark.parametrize("cut", [0, 5, 40])
def test_decode_refuses_cut_off_bytes(cut):
    with pytest.raises(ValueError, match="expected the bytes of a PNG"):
        decode_png(encode_png(grey(np.arange(256).reshape(16, 16)))[:cut])


def test_rle_agrees_with_numpy_and_with_cocos_column_order():
    mask = np.zeros((3, 4), bool)
    mask[1, 1] = mask[2, 1] = mask[0, 3] = True
    text = encode_rle(mask)
    assert json.loads(text)["size"] == [3, 4]
    # COCO runs go down the columns: 4 off, 2 on (column 1), 3 off, 1 on, 2 off; 6 bits a run,
    # offset 48; from the fourth run on the difference to the run two before (1-2, 2-3) is stored.
    assert json.loads(text)["counts"] == "423" + chr(48 + (-1 & 31)) + chr(48 + (-1 & 31))
    assert np.array_equal(decode_rle(text), mask)
    rng = np.random.default_rng(1)
    for shape in [(64, 64), (1, 9), (37, 53)]:
        mask = rng.random(shape) < 0.3
        back = decode_rle(encode_rle(mask))
        assert back.dtype == bool and np.array_equal(back, mask) and back.sum() == mask.sum()


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '{"size": [2], "counts": 3}'])
def test_rle_refuses_other_text(text):
    with pytest.raises(ValueError, match="expected JSON"):
        decode_rle(text)
    with pytest.raises(ValueError, match="expected a mask bool"):
        encode_rle(np.zeros((2, 2), np.uint8))


def test_facts_of_a_two_level_picture():
    """Half 10 and half 30: mean 20, spread 10, one bit; the Laplacian by hand."""
    facts = picture_facts(grey([[10, 10, 30, 30]] * 4))
    assert facts["width"] == 4 and facts["height"] == 4
    assert facts["mean"] == 20 and facts["std"] == 10 and facts["entropy"] == 1.0
    # inner pixels: left of the edge +20, right of it -20, two rows of each: variance 400
    assert facts["sharpness"] == 400
    assert facts["sha256"] == pixel_digest(grey([[10, 10, 30, 30]] * 4))


def test_facts_of_flat_and_full_pictures():
    flat = picture_facts(grey(np.full((8, 8), 77)))
    assert flat["std"] == flat["entropy"] == flat["sharpness"] == 0 and flat["dhash"] == "0" * 16
    every = picture_facts(grey(np.arange(256).reshape(16, 16)))
    assert every["entropy"] == pytest.approx(8.0)
    assert all(type(value) in (int, float, str) for value in every.values())


def test_pixel_digest_knows_the_shape():
    assert pixel_digest(grey(np.zeros((2, 8)))) != pixel_digest(grey(np.zeros((4, 4))))


def test_difference_hash_by_hand():
    rising = np.tile(np.arange(9) * 20, (8, 1))
    assert difference_hash(grey(rising)) == "f" * 16  # every pixel is darker than its right one
    assert difference_hash(grey(rising[:, ::-1])) == "0" * 16
    one = np.zeros((8, 9))
    one[0, 1] = 100  # only the first comparison of the first row rises
    assert difference_hash(grey(one)) == "8" + "0" * 15


def test_hamming_and_close_pairs():
    hashes = ["0" * 16, "0" * 15 + "3", "f" * 16, "0" * 15 + "1"]
    assert hamming(hashes[0], hashes[1]) == 2 and hamming(hashes[0], hashes[2]) == 64
    assert close_pairs(hashes, 1).tolist() == [[0, 3], [1, 3]]
    assert close_pairs(hashes, 2).tolist() == [[0, 1], [0, 3], [1, 3]]
    assert close_pairs([], 2).shape == (0, 2)


def test_a_changed_copy_is_the_same_picture_and_another_scene_is_not(scenes):
    """What the repeat rule rests on: SAME_DIFFERENCE lies between the two."""
    rng = np.random.default_rng(0)
    for scene in scenes[:40]:
        noise = rng.integers(-8, 9, scene.image.shape)
        copy = np.clip(scene.image + noise, 0, 255).astype(np.uint8)
        assert same_picture(scene.image, copy)
    pairs = close_pairs([difference_hash(scene.image) for scene in scenes], 6)
    assert len(pairs) > 5  # close hashes do occur among different drawn pictures
    for i, j in pairs:
        a, b = (scenes[k].image.astype(int) for k in (i, j))
        assert np.abs(a - b).mean() > 1.5 * SAME_DIFFERENCE
        assert not same_picture(scenes[i].image, scenes[j].image)
    assert not same_picture(scenes[0].image, scenes[0].image[:32])


def test_palette_is_vocs():
    known = {
        0: (0, 0, 0),
        1: (128, 0, 0),
        2: (0, 128, 0),
        7: (128, 128, 128),
        8: (64, 0, 0),
        15: (192, 128, 128),
        20: (0, 64, 128),
        255: (224, 224, 192),
    }
    for label, colour in known.items():
        assert tuple(PALETTE[label]) == colour
    assert len({tuple(colour) for colour in PALETTE}) == 256


def test_overlay_tints_inside_outlines_and_leaves_the_rest():
    image = np.full((7, 7, 3), 100, np.uint8)
    mask = np.zeros((1, 7, 7), bool)
    mask[0, 1:6, 1:6] = True
    painted = overlay(image, mask, [(200, 0, 0)], alpha=0.5)
    assert tuple(painted[0, 0]) == (100, 100, 100)
    assert tuple(painted[1, 1]) == (200, 0, 0)  # outline
    assert tuple(painted[3, 3]) == (150, 50, 50)  # halfway
    assert np.array_equal(image, np.full((7, 7, 3), 100))  # the input is not painted on
    assert np.array_equal(overlay(image, np.zeros((0, 7, 7), bool)), image)
    two = overlay(image, np.stack([mask[0], ~mask[0]]), alpha=1.0)
    assert tuple(two[3, 3]) == tuple(MASK_COLOURS[0]) and tuple(two[0, 0]) == tuple(MASK_COLOURS[1])


def test_label_overlay_uses_voc_colours():
    labels = np.zeros((6, 6), np.uint8)
    labels[:3], labels[4:] = 2, 255
    painted = label_overlay(np.full((6, 6, 3), 100, np.uint8), labels, alpha=1.0)
    assert tuple(painted[0, 0]) == (0, 128, 0) and tuple(painted[5, 5]) == (224, 224, 192)
    assert tuple(painted[3, 0]) == (100, 100, 100)
    with pytest.raises(ValueError, match="label map: expected"):
        label_overlay(np.zeros((6, 6, 3), np.uint8), np.zeros((5, 6), np.uint8))


def test_contact_sheet_fits_and_is_the_same_each_time(tmp_path, scenes):
    """48 noisy pictures would be 400 KB at full quality; the file stays under 100 KB."""
    noisy = [
        np.random.default_rng(i).integers(0, 256, (64, 64, 3)).astype(np.uint8) for i in range(48)
    ]
    contact_sheet(
        noisy,
        None,
        ["a very long caption that cannot fit below a picture"] * 48,
        tmp_path / "noisy.jpg",
    )
    shown = scenes[:12]
    for name in ("a.jpg", "b.jpg"):
        contact_sheet(
            [s.image for s in shown],
            [s.masks for s in shown[:6]] + [s.label_map() for s in shown[6:11]] + [None],
            [s.caption for s in shown],
            tmp_path / name,
            columns=5,
            scale=2,
        )
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()
    for file in tmp_path.iterdir():
        assert 0 < file.stat().st_size <= MAX_SHEET_BYTES
    with Image.open(tmp_path / "a.jpg") as sheet:
        assert sheet.width == 5 * (128 + 6) + 6  # five columns of doubled pictures


def test_contact_sheet_refuses_a_mismatch(tmp_path):
    with pytest.raises(ValueError, match="1 pictures, 1 overlays, 2 captions"):
        contact_sheet([grey(np.zeros((4, 4)))], None, ["a", "b"], tmp_path / "x.jpg")
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([], None, [], tmp_path / "x.jpg")


def test_spread_reaches_both_ends():
    assert spread(3, 24) == [0, 1, 2] and spread(0, 5) == []
    assert spread(101, 5) == [0, 25, 50, 75, 100]
