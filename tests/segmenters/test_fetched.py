"""The pictures of a training on an object store, read by ranges of one object."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

from ml.images.png import encode_png
from ml.segmenters import fetched
from tests.builders import object_store


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    object_store.use_keys(monkeypatch)


def pictures(n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    chance = np.random.default_rng(5)
    sizes = [(int(h), int(w)) for h, w in chance.integers(8, 40, (n, 2))]
    return (
        [chance.integers(0, 256, (*size, 3), np.uint8) for size in sizes],
        [chance.integers(0, 21, size, np.uint8) for size in sizes],
    )


def frames(images: list[np.ndarray], labels: list[np.ndarray]) -> list[pd.DataFrame]:
    rows = [
        {"image": encode_png(image), "label": encode_png(label)}
        for image, label in zip(images, labels, strict=True)
    ]
    return [pd.DataFrame(rows[:7]), pd.DataFrame(rows[7:])]


@pytest.mark.parametrize("kept", [0, 2**20])
def test_every_picture_comes_back_in_any_order_and_from_threads(s3, tmp_path, monkeypatch, kept):
    monkeypatch.setattr(fetched, "KEPT", kept)
    images, labels = pictures(20)
    file = object_store.place(s3, tmp_path.name) / "pictures"
    fetched.store(file, frames(images, labels))
    assert fetched.is_whole(file)
    found, truths = fetched.open_parts(file)
    assert len(found) == len(truths) == 20
    order = [*range(20), *np.random.default_rng(6).permutation(20)]
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda place: (found[place], truths[place]), order))
    for place, (image, label) in zip(order, read, strict=True):
        np.testing.assert_array_equal(image, images[place])
        np.testing.assert_array_equal(label, labels[place])
    with pytest.raises(IndexError):
        found[20]


def test_half_a_file_is_not_whole(s3, tmp_path):
    file = object_store.place(s3, tmp_path.name) / "pictures"
    assert not fetched.is_whole(file)
    fetched.store(file, frames(*pictures(9)))
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert not fetched.is_whole(file)
