"""An export is a layout that teaches: `triplets.labels` and a benchmark read it back."""

from pathlib import Path

import numpy as np
import pytest

from ml.datasets.own import layout_of, open_own
from ml.datasets.photos import PhotoFiles
from ml.exports import FORMATS
from ml.images.facts import pixel_digest
from ml.images.png import decode_png
from tests.builders import exported
from tests.builders.exported import CLASSES


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("exports")
    shards = exported.write_set(home / "shards")
    for kind in FORMATS:
        exported.export(home / kind, kind, shards)
    return {kind: home / kind for kind in FORMATS}


def name_of(photos: PhotoFiles, key: str, names: dict[str, str]) -> str:
    """The key that a picture had before it was exported."""
    stem = key if photos.photo(key).suffix == ".tar" else photos.photo(key).stem
    return names.get(pixel_digest(photos.picture(key)[1]), stem)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_is_read_back(kind, made):
    """The layout is found out, each part has its own pictures, and the labels are those of the set:
    to the pixel, but for YOLO's polygons, which have no uncertain pixels either."""
    truth, frame = exported.truth(), exported.rows()
    images = [decode_png(data) for data in frame.image]
    names = {pixel_digest(i): key for i, key in zip(images, frame.key, strict=True)}
    assert layout_of(made[kind]) == kind
    seen: list[str] = []
    for part in ("labels", "test"):  # the export's train and val
        photos = open_own(made[kind], part)
        named = dict(enumerate(CLASSES, start=1))
        if kind == "webdataset":  # each sample names what it shows
            assert photos.names.items() <= named.items()
        else:
            assert photos.names == named
        for key in photos.keys:
            name, got = name_of(photos, key, names), photos.truth(key)
            seen.append(name)
            if kind != "yolo-seg":
                assert np.array_equal(got, truth[name])
                continue
            for value in set(np.unique(truth[name]).tolist()) - {0, 255}:
                a, b = got == value, truth[name] == value
                assert (a & b).sum() / (a | b).sum() > 0.8
    assert sorted(seen) == sorted(truth)
