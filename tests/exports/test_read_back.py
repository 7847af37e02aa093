"""What `export` writes is what a user may bring as labels: every format, read by `ml.datasets`."""

import numpy as np
import pytest

from ml.datasets.own import open_own
from ml.exports import FORMATS
from tests.builders import exported


@pytest.mark.parametrize("kind", FORMATS)
def test_an_export_is_a_labelled_set(kind, tmp_path):
    shards = exported.write_set(tmp_path / "shards")
    exported.export(tmp_path / kind, kind, shards)
    exported.export(tmp_path / "which", "coco", shards)
    keys = sorted(path.stem for path in (tmp_path / "which" / "train").iterdir())
    truth = exported.truth()
    read = open_own(tmp_path / kind, "train")
    assert len(read.keys) == len(keys)
    names = {value: label for label, value in enumerate(("", *exported.CLASSES))}
    for own, key in zip(sorted(read.keys), keys, strict=True):
        labels = read.truth(own)
        found = np.zeros_like(labels)
        for value in set(np.unique(labels)) - {0}:
            found[labels == value] = 255 if value == 255 else names[read.names[int(value)]]
        if kind == "yolo-seg":  # no label for uncertain pixels, and cuts between parts
            assert (found == np.where(truth[key] == 255, 0, truth[key])).mean() > 0.97
        else:
            assert np.array_equal(found, truth[key])
