"""The search for near copies answers as the comparison of all pairs does, one by one."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ml.drawn_world.world import draw_scene, scene_seed
from ml.images import near_copies, repeats
from ml.images.facts import difference_hash, pixel_digest
from ml.images.near_copies import (
    block_sums,
    close_pairs,
    hamming,
    may_be_same,
    near_earlier,
    same_picture,
)
from ml.images.png import encode_png
from ml.images.repeats import find_repeats
from ml.store.shards import write_shard


def texts(values) -> list[str]:
    return [f"{value:016x}" for value in values]


def hash_sets() -> dict[str, list[str]]:
    rng = np.random.default_rng(0)
    base = [int(value) for value in rng.integers(0, 2**63, 40)]
    near = [
        value ^ (1 << int(a)) ^ (1 << int(b))
        for value in base
        for a, b in [rng.integers(64, size=2)]
    ]
    return {
        "none": [],
        "one": texts([5]),
        "random": texts(rng.integers(0, 2**63, 300)),
        "planted": texts(rng.permutation(np.array(base + near + base[:9], np.uint64)).tolist()),
        "all equal": texts([7] * 80),
        "the first half equal": texts((rng.integers(0, 2**32, 200) << 3).tolist()),
        "few bits set": texts(rng.integers(0, 64, 200)),
        "each a bit from the next": texts([(1 << place) - 1 for place in range(64)]),
        "differences in every band": texts(
            [0] + [1 << a | 1 << b for a in range(64) for b in range(a, 64, 7)]
        ),
    }


@pytest.mark.parametrize("bits", [0, 1, 2, 5, 16, 32])
@pytest.mark.parametrize("name", hash_sets())
def test_close_hashes_are_those_of_all_pairs(name, bits, monkeypatch):
    hashes = hash_sets()[name]
    count = len(hashes)
    pairs = [
        [i, j]
        for i in range(count)
        for j in range(i + 1, count)
        if hamming(hashes[i], hashes[j]) <= bits
    ]
    near = {j for _, j in pairs}
    for most in (near_copies.MOST_PAIRS, 50):  # 50: in many parts
        monkeypatch.setattr(near_copies, "MOST_PAIRS", most)
        assert close_pairs(hashes, bits).tolist() == pairs
        assert near_earlier(hashes, bits).tolist() == [i in near for i in range(count)]


def all_pairs(keys, images, hashes, bits) -> dict[str, str]:
    """{later: earlier}; every picture with every other."""
    found: dict[str, str] = {}
    for i, earlier in enumerate(keys):
        for j in range(i + 1, len(keys)):
            same = hamming(hashes[i], hashes[j]) <= bits and same_picture(images[i], images[j])
            if same and earlier not in found:
                found.setdefault(keys[j], earlier)
    return found


def noisy(image, rng, levels: int):
    noise = rng.integers(-levels, levels + 1, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


def picture_sets() -> dict[str, list[np.ndarray]]:
    rng = np.random.default_rng(1)
    scenes = [draw_scene(scene_seed("test", 6000 + i)).image for i in range(12)]
    step = np.zeros((64, 64, 3), np.uint8)
    step[:, 32:] = 60  # dark left half, bright right half: one hash whatever the levels are
    chain = [np.clip(scenes[0].astype(int) + 4 * i, 0, 255).astype(np.uint8) for i in range(9)]
    return {
        "copies, exact and near": [
            *scenes,
            *(noisy(scene, rng, 9) for scene in scenes),
            *scenes[3:6],
        ],
        "one hash, other colours": [step, step + 100, step + 3, step + 104, step, step + 190],
        "a chain, each near the next": [*chain, *chain[::-1]],
        "one picture, over and over": [noisy(scenes[0], rng, 3) for _ in range(30)],
        "other sizes": [step, step[:32], step[:, :40], scenes[0], scenes[0][:63], step],
        "at the edge of what is same": [step, step + 5, step + 6, step + 7, step + 11, step + 12],
    }


@pytest.mark.parametrize("bits", [0, 2, 8])
@pytest.mark.parametrize("name", picture_sets())
def test_repeats_are_those_of_all_pairs(name, bits, tmp_path, monkeypatch):
    images = picture_sets()[name]
    keys = [f"train-{i:06d}" for i in range(len(images))]
    rows = pd.DataFrame({"key": keys, "image": [encode_png(image) for image in images]})
    schema = pa.schema([("key", pa.string()), ("image", pa.binary())])
    for number in range(0, len(rows), 4):
        write_shard(
            tmp_path / f"shard-{number:05d}.parquet", "r", rows[number : number + 4], schema
        )
    hashes = [difference_hash(image) for image in images]
    facts = keys, hashes, [pixel_digest(image) for image in images]
    truth = all_pairs(keys, images, hashes, bits)
    assert find_repeats(tmp_path, *facts, bits) == truth
    monkeypatch.setattr(repeats, "MOST_BYTES", 1)  # a pair at a time
    monkeypatch.setattr(near_copies, "MOST_PAIRS", 3)
    assert find_repeats(tmp_path, *facts, bits) == truth
    assert name == "copies, exact and near" or truth  # there is something to find


def test_only_few_pictures_are_decoded_at_once(tmp_path, monkeypatch):
    """A thousand pictures that are nearly one: the first is compared with the others in parts."""
    rng = np.random.default_rng(2)
    scene = draw_scene(scene_seed("test", 6000)).image
    images = [noisy(scene, rng, 2) for _ in range(200)]
    keys = [f"{i:03d}" for i in range(len(images))]
    schema = pa.schema([("key", pa.string()), ("image", pa.binary())])
    rows = pd.DataFrame({"key": keys, "image": [encode_png(image) for image in images]})
    write_shard(tmp_path / "shard-00000.parquet", "r", rows, schema)
    loaded: list[int] = []
    load = repeats.load_pictures

    def counted(folder, wanted, shards):
        loaded.append(len(wanted))
        return load(folder, wanted, shards)

    monkeypatch.setattr(repeats, "load_pictures", counted)
    monkeypatch.setattr(repeats, "MOST_BYTES", 40 * scene.nbytes)
    facts = [difference_hash(scene)] * 200, [pixel_digest(image) for image in images]
    assert set(find_repeats(tmp_path, keys, *facts, 2).values()) == {"000"}
    assert max(loaded) <= 40 and sum(loaded) < 250


def test_what_blocks_rule_out_is_never_the_same():
    rng = np.random.default_rng(3)
    shapes = [(1, 1, 3), (3, 5, 3), (64, 64, 3), (65, 33, 3)]
    ruled_out = 0
    for _ in range(400):
        shape = shapes[rng.integers(len(shapes))]
        a = rng.integers(0, 256, shape).astype(np.uint8)
        b = noisy(a, rng, int(rng.integers(1, 40)))
        b = np.clip(b.astype(int) + rng.integers(0, 9), 0, 255).astype(np.uint8)
        may = bool(may_be_same(block_sums(a)[None], block_sums(b)[None])[0])
        assert may or not same_picture(a, b)
        ruled_out += not may
    assert 20 < ruled_out < 380
