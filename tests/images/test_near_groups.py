"""Groups of near copies are those that the comparison of all pairs gives, one by one."""

import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ml.images import near_groups
from ml.images.facts import difference_hash, pixel_digest
from ml.images.near_copies import hamming, same_picture
from ml.images.png import encode_png
from ml.store.shards import write_shard
from tests.images.test_repeats import picture_sets

SCHEMA = pa.schema(
    [
        ("image", pa.binary()),
        ("dhash", pa.string()),
        ("sha256", pa.string()),
        ("accepted", pa.bool_()),
    ]
)


def group_sets() -> dict[str, list[np.ndarray]]:
    """Those in which repeats are looked for, and what is special to groups."""
    sets = picture_sets()
    chain = sets["a chain, each near the next"][:9]
    return sets | {"none": [], "a chain, every second one first": [*chain[::2], *chain[1::2]]}


def write(folder, images, accepted=None) -> list[str]:
    hashes = [difference_hash(image) for image in images]
    rows = pd.DataFrame(
        {
            "image": [encode_png(image) for image in images],
            "dhash": hashes,
            "sha256": [pixel_digest(image) for image in images],
            "accepted": [True] * len(images) if accepted is None else accepted,
        }
    )
    for number in range(0, len(rows), 4):
        path = folder / f"shard-{number:05d}.parquet"
        write_shard(path, "r", rows[number : number + 4], SCHEMA)
    return hashes


def truth_of(images, hashes, bits) -> list[int]:
    first, before = list(range(len(images))), None
    near = [
        (i, j)
        for i, j in itertools.combinations(range(len(images)), 2)
        if np.array_equal(images[i], images[j])
        or (hamming(hashes[i], hashes[j]) <= bits and same_picture(images[i], images[j]))
    ]
    while before != first:
        before = list(first)
        for i, j in near:
            first[i] = first[j] = min(first[i], first[j])
    return first


@pytest.mark.parametrize("bits", [0, 2, 8])
@pytest.mark.parametrize("name", group_sets())
def test_groups_are_those_of_all_pairs(name, bits, tmp_path, monkeypatch):
    images = group_sets()[name]
    truth = truth_of(images, write(tmp_path, images), bits)
    monkeypatch.setattr(near_groups, "MOST_LOADED", 2)
    monkeypatch.setattr(near_groups, "MOST_PAIRS", 3)
    assert near_groups.near_groups(tmp_path, bits).tolist() == truth
    assert not name.startswith("a chain") or bits < 8 or set(truth) == {0}


def test_only_accepted_pictures_count(tmp_path):
    scenes = picture_sets()["copies, exact and near"]
    write(tmp_path, scenes, [place % 3 != 0 for place in range(len(scenes))])
    kept = [image for place, image in enumerate(scenes) if place % 3]
    hashes = [difference_hash(image) for image in kept]
    assert near_groups.near_groups(tmp_path, 2).tolist() == truth_of(kept, hashes, 2)


@pytest.mark.parametrize("bits", [0, 1, 3, 14, 15, 32])
def test_close_hashes_are_those_of_all_pairs(bits, monkeypatch):
    rng = np.random.default_rng(bits)
    base = rng.integers(0, 2**63, 30, np.uint64)
    flips = np.uint64(1) << rng.integers(0, 63, (3, 30)).astype(np.uint64)
    values = np.concatenate([base, base ^ flips[0], base ^ flips[1] ^ flips[2], base[:9]])
    monkeypatch.setattr(near_groups, "MOST_PAIRS", 50)
    blocks = [np.zeros((0, 2), np.int64), *near_groups.close_blocks(values, bits)]
    found = sorted(map(tuple, np.concatenate(blocks).tolist()))
    assert found == [
        (i, j)
        for i, j in itertools.combinations(range(len(values)), 2)
        if (int(values[i]) ^ int(values[j])).bit_count() <= bits
    ]
