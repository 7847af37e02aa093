"""Exports in the hands of tools that are not in this project's environment: run where they are.

python3 -m venv /tmp/tools && /tmp/tools/bin/pip install ultralytics fiftyone '.[export,dev]'
/tmp/tools/bin/python -m pytest -m slow tests/exports/test_trainers.py
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ml.__main__ import main
from ml.settings.profile import load_params
from ml.words.vocabulary import load_vocabulary
from tests.builders import exported, handmade

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A workspace with a synthetic set of drawn scenes."""
    workspace = handmade.data_stages(tmp_path_factory.mktemp("trainers"))
    handmade.write_weights(workspace, "grounding_model")
    handmade.write_model(workspace, "grounding_model")
    handmade.write_synthetic(workspace)
    return workspace.root


def export(root: Path, kind: str) -> Path:
    assert main(["export", "--profile", "ci", "--root", str(root), "--format", kind]) == 0
    return root / "data" / "ci" / "exports" / kind


@pytest.fixture
def ultralytics(monkeypatch):
    monkeypatch.setenv("YOLO_OFFLINE", "true")
    found = pytest.importorskip("ultralytics")
    monkeypatch.setattr("ultralytics.data.utils.check_font", lambda *_: None)  # would download one
    return found


def test_ultralytics_draws_the_same_masks(ultralytics, tmp_path):
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset, polygon2mask

    shards = exported.write_set(tmp_path / "shards")
    facts = exported.export(tmp_path / "out", "yolo-seg", shards)
    data = check_det_dataset(str(tmp_path / "out" / "data.yaml"), autodownload=False)
    assert data["names"] == dict(enumerate(exported.CLASSES))
    truth, overlaps = exported.truth(), []
    for split in ("train", "val"):
        read = YOLODataset(img_path=data[split], data=data, task="segment", imgsz=64, augment=False)
        assert len(read.labels) == facts["pictures"][split]
        for own in read.labels:
            label = truth[Path(own["im_file"]).stem]
            values = [int(value) for value in np.unique(label) if value not in (0, 255)]
            assert own["cls"].ravel().tolist() == [value - 1 for value in values]
            for value, points in zip(values, own["segments"], strict=True):
                pixels = points * np.array(label.shape[::-1], np.float32)
                mask = polygon2mask(label.shape, [pixels.ravel()]) > 0
                mine = label == value
                overlaps.append((mask & mine).sum() / (mask | mine).sum())
    measured = facts["measured"]
    assert np.mean(overlaps) == pytest.approx(measured["polygon_iou_mean"], abs=1e-3)
    assert sorted(overlaps)[1:] == [1.0] * (measured["objects"] - 1)  # all but the one of 3 parts


def test_ultralytics_trains_an_epoch(ultralytics, root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = export(root, "yolo-seg")
    model = ultralytics.YOLO("yolo11n-seg.yaml")
    options = {"imgsz": 64, "batch": 16, "workers": 0, "device": "cpu", "plots": False}
    trained = model.train(
        data=str(folder / "data.yaml"), epochs=1, project=str(tmp_path), name="run", **options
    )
    assert (tmp_path / "run" / "weights" / "last.pt").is_file()
    names = load_vocabulary(load_params("ci").vocabulary).classes
    assert list(trained.names.values()) == list(names)
    assert np.isfinite(trained.results_dict["metrics/mAP50(M)"])
    # what it left there does not stand in the way
    assert list(folder.glob("labels/*.cache"))
    export(root, "yolo-seg")


def test_fiftyone_imports(root):
    """Its importer of COCO files alone, which needs no database."""
    coco = pytest.importorskip("fiftyone.utils.coco")
    folder = export(root, "coco")
    importer = coco.COCODetectionDatasetImporter(
        data_path=str(folder / "train"),
        labels_path=str(folder / "annotations" / "instances_train.json"),
        label_types="segmentations",
    )
    classes = load_vocabulary(load_params("ci").vocabulary).classes
    masks = export(root, "voc") / "VOCdevkit/VOC2012/SegmentationClass"
    seen = 0
    with importer:
        for path, _, found in importer:
            label = np.asarray(Image.open(masks / f"{Path(path).stem}.png"))
            drawn = np.zeros_like(label)
            for one in found.detections:
                height, width = label.shape
                x, y = round(one.bounding_box[0] * width), round(one.bounding_box[1] * height)
                part = drawn[y : y + one.mask.shape[0], x : x + one.mask.shape[1]]
                part[one.mask.astype(bool)] = classes.index(one.label) + 1
            assert np.array_equal(drawn, label)
            seen += 1
    assert seen == len(list((folder / "train").iterdir()))
