"""The detectron2 backend against the real library, with random weights in the zoo's own form.

Skipped, saying how to install it, where detectron2 is not there: PyPI has no release of it.
"""

import pickle
import shutil
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch

from ml.detectors import load_detector
from ml.detectors.detectron2_zoo import INSTALL
from ml.words.spellings import SPELLINGS

pytest.importorskip(
    "detectron2.model_zoo",
    exc_type=ImportError,
    reason=f"detectron2 cannot be imported here. Install it with:\n    {INSTALL}",
)

from detectron2 import model_zoo  # noqa: E402
from detectron2.config import instantiate  # noqa: E402
from detectron2.data.transforms import AugmentationList, ResizeShortestEdge  # noqa: E402
from detectron2.engine import DefaultPredictor  # noqa: E402
from detectron2.modeling import build_model  # noqa: E402
from detectron2.utils.file_io import PathManager  # noqa: E402

YAML = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml"
LAZY = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.py"
LSJ = "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py"
SMALL = [ResizeShortestEdge([192, 192], 256)]  # the zoo's 800 pixels take a minute on a CPU
PICTURE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module", autouse=True)
def hub_folder(tmp_path_factory):
    """Converted files go below torch's hub folder; these are 1 GB together."""
    before, folder = torch.hub.get_dir(), tmp_path_factory.mktemp("hub")
    torch.hub.set_dir(str(folder))
    yield
    torch.hub.set_dir(before)
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def tidy(tmp_path):
    """A full-size file has 180 to 430 MB, and pytest keeps the folders of three runs."""
    yield
    shutil.rmtree(tmp_path)


def yaml_config():
    cfg = model_zoo.get_config(YAML)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 192, 256
    return cfg


def random_model(cfg):
    """Random weights that find a hundred things: untrained norms of one let the features grow
    without bound, and an untrained classifier sees background alone."""
    torch.manual_seed(0)
    model = build_model(cfg) if "MODEL" in cfg else instantiate(cfg.model)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("norm.weight"):
                value.fill_(0.3 if "conv3" in name else 0.7)
        model.roi_heads.box_predictor.cls_score.bias[-1] = -4.0
        model.roi_heads.mask_head.predictor.weight.normal_(std=0.1)
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    return model.eval()


def zoo_file(folder: Path, model, **extra) -> Path:
    """As the zoo publishes: a pickle of numpy arrays, with buffers that detectron2 has dropped."""
    arrays = {name: value.numpy() for name, value in model.state_dict().items()}
    arrays["pixel_mean"] = np.zeros((3, 1, 1), np.float32)
    arrays["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((3, 4), np.float32)
    file = folder / "model_final_0ddba1.pkl"
    file.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"} | extra))
    return file


@pytest.fixture(scope="module")
def r50(tmp_path_factory):
    """(network with random weights, its file in the zoo's form)."""
    model = random_model(yaml_config())
    file = zoo_file(tmp_path_factory.mktemp("r50"), model)
    yield model, file
    file.unlink()


def small_detector(name, **settings):
    detector = load_detector("detectron2", name, device="cpu",
                             **{"score_threshold": 0.0} | settings)  # fmt: skip
    detector.resize = AugmentationList(SMALL)
    return detector


def test_it_finds_what_detectron2s_own_predictor_finds(r50):
    """DefaultPredictor reads the pickle its own way and wants BGR; ours goes by safetensors."""
    _, file = r50
    detector = small_detector(YAML, weights=file)
    assert detector.known == tuple(sorted(SPELLINGS)) and detector.bgr
    cfg = yaml_config()
    cfg.MODEL.WEIGHTS = str(file)
    theirs = DefaultPredictor(cfg)(PICTURE[:, :, ::-1])["instances"]
    assert len(theirs) > 10
    (ours,) = detector.predict([PICTURE])
    masks, scores, names, boxes = ours
    np.testing.assert_array_equal(masks, theirs.pred_masks.numpy())
    np.testing.assert_allclose(scores, theirs.scores.numpy(), atol=1e-6)
    np.testing.assert_allclose(boxes, theirs.pred_boxes.tensor.numpy(), atol=1e-4)
    assert [detector.names.index(name) for name in names] == theirs.pred_classes.tolist()
    seen = ["tvmonitor", "sofa", "dog"]
    (asked,) = detector.detect([PICTURE], seen)
    assert set(asked.labels) <= set(seen) and asked.masks.shape[1:] == (96, 128)


def test_the_threshold_is_the_networks_own(r50):
    _, scores, _, _ = small_detector(YAML, weights=r50[1]).predict([PICTURE])[0]
    middle = float(np.sort(scores)[len(scores) // 2])
    fewer = small_detector(YAML, weights=r50[1], score_threshold=middle).predict([PICTURE])[0][1]
    assert 0 < len(fewer) < len(scores) and (fewer >= middle).all()


def test_names_of_other_libraries_are_matched(tmp_path, r50):
    """What detectron2's conversion tools write: names without the network's prefixes."""
    model, _ = r50
    arrays = {name.replace("backbone.bottom_up.", ""): value.numpy()
              for name, value in model.state_dict().items()}  # fmt: skip
    (tmp_path / "r50.pkl").write_bytes(pickle.dumps(
        {"model": arrays, "__author__": "torchvision", "matching_heuristics": True}))  # fmt: skip
    ours = load_detector("detectron2", YAML, weights=tmp_path / "r50.pkl", device="cpu")
    assert all(torch.equal(value, ours.model.state_dict()[name])
               for name, value in model.state_dict().items())  # fmt: skip


@pytest.mark.parametrize("name", [LAZY, LSJ])
def test_python_configurations_run(tmp_path, name):
    """LSJ: the zoo's stronger Mask R-CNNs, with synchronised BatchNorm and other heads."""
    model = random_model(model_zoo.get_config(name))
    torch.save({"model": model.state_dict(), "iteration": 1}, tmp_path / "model_final.pth")
    detector = small_detector(name, weights=tmp_path / "model_final.pth")
    pixels = SMALL[0].get_transform(PICTURE).apply_image(np.ascontiguousarray(PICTURE[:, :, ::-1]))
    tensor = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)
    with torch.no_grad():
        theirs = model([{"image": tensor, "height": 96, "width": 128}])[0]["instances"]
    assert len(theirs) > 10
    masks, scores, _, _ = detector.predict([PICTURE])[0]
    np.testing.assert_allclose(scores, theirs.scores.numpy(), atol=1e-6)
    np.testing.assert_array_equal(masks, theirs.pred_masks.numpy())


@pytest.mark.slow
def test_the_zoos_own_picture_size(r50):
    (found,) = load_detector("detectron2", YAML, weights=r50[1], score_threshold=0.0,
                             device="cpu").detect([PICTURE])  # fmt: skip
    assert found.masks.shape[1:] == (96, 128) and len(found) > 10


def test_the_papers_strongest_backbone_is_built(tmp_path):
    name = "COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x.yaml"
    cfg = model_zoo.get_config(name)
    cfg.MODEL.DEVICE = "cpu"
    file = zoo_file(tmp_path, build_model(cfg))  # 430 MB
    detector = load_detector("detectron2", name, weights=file, device="cpu")
    assert sum(p.numel() for p in detector.model.parameters()) > 100e6


def test_an_own_folder_with_own_classes(tmp_path):
    cfg = yaml_config()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 2
    cfg.DATASETS.TEST = ("warehouse_val",)
    torch.save({"model": random_model(cfg).state_dict()}, tmp_path / "model_final.pth")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    with pytest.raises(ValueError, match="'warehouse_val': put them into classes.txt"):
        load_detector("detectron2", tmp_path, device="cpu")
    (tmp_path / "classes.txt").write_text("Forklift\npallet\nhard hat\n")
    with pytest.raises(ValueError, match="3 label names, expected 2"):
        load_detector("detectron2", tmp_path, device="cpu")
    (tmp_path / "classes.txt").write_text("Forklift\npallet\n")
    detector = load_detector("detectron2", tmp_path, score_threshold=0.0, device="cpu")
    assert detector.known == ("forklift", "pallet")
    assert set(detector.detect([PICTURE])[0].labels) <= {"forklift", "pallet"}


def test_yaml_that_runs_code_is_refused_and_not_run(tmp_path):
    ran = tmp_path / "ran"
    (tmp_path / "config.yaml").write_text(f"A: !!python/object/apply:os.system ['touch {ran}']\n")
    with pytest.raises(ValueError, match="plain data as its tools write it"):
        load_detector("detectron2", tmp_path, device="cpu")
    assert not ran.exists()


class Runs:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)


def test_a_malicious_zoo_file_is_refused_and_not_run(tmp_path, r50):
    file = zoo_file(tmp_path, r50[0], extra=Runs(tmp_path / "ran"))
    with pytest.raises(ValueError, match="holds more than tensors"):
        load_detector("detectron2", YAML, weights=file, device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name, match", [
    ("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN.yaml", "near are: .*mask_rcnn_R_50_FPN_3x.yaml"),
    ("mask_rcnn_R_50_FPN_3x", "neither a folder nor a configuration.*All are in"),
    ("COCO-Detection/faster_rcnn_R_50_FPN_3x.yaml", "not a configuration for instance masks"),
    ("COCO-Detection/retinanet_R_50_FPN_3x.yaml", "not a configuration for instance masks"),
    ("new_baselines/mask_rcnn_R_50_FPN_50ep_LSJ.py", "publishes no weights.*detector.weights"),
])  # fmt: skip
def test_wrong_names_say_what_to_take(name, match):
    with pytest.raises(ValueError, match=match):
        load_detector("detectron2", name, device="cpu")


def test_weights_of_another_configuration_are_refused(r50):
    name = "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x.yaml"
    with pytest.raises(ValueError, match="weights of another model: 153 of its weights are miss"):
        load_detector("detectron2", name, weights=r50[1], device="cpu")


def test_without_a_network_the_file_and_the_setting_are_named(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(PathManager, "get_local_path", refuse)
    with pytest.raises(ConnectionError, match="137849600/model_final_f10217.pkl.*detector.weights"):
        load_detector("detectron2", YAML, device="cpu")


def test_published_weights_are_taken_from_detectron2s_cache(monkeypatch, r50):
    asked = []
    monkeypatch.setattr(PathManager, "get_local_path", lambda url: asked.append(url) or r50[1])
    detector = load_detector("detectron2", YAML, device="cpu")
    assert asked == [model_zoo.get_checkpoint_url(YAML)]
    assert torch.equal(detector.model.state_dict()["backbone.fpn_lateral2.weight"],
                       r50[0].state_dict()["backbone.fpn_lateral2.weight"])  # fmt: skip
