"""Detectors at full size, with random weights: shapes, label names, memory, and what they refuse.

The real classes at the real shapes; what they find means nothing here.
"""

import json
import shutil
from pathlib import PurePosixPath

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessor,
    MaskFormerConfig,
    SwinConfig,
)

from ml.detectors import Detector, load_detector
from ml.detectors.torchvision_maskrcnn import COCO, build_coco
from ml.errors import OutOfMemory
from ml.settings.profile import load_params
from ml.words.spellings import SPELLINGS, canonical
from ml.words.vocabulary import load_vocabulary

# Independent of our table: torchvision's list, which is COCO's with its unused numbers.
COCO_NAMES = [name for name in MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1.meta["categories"]
              if name not in ("__background__", "N/A")]  # fmt: skip
# MMDetection's and the official code's spellings of the names that differ from COCO's
MMDETECTION = (
    "aeroplane",
    "motorbike",
    "sofa",
    "pottedplant",
    "diningtable",
    "tvmonitor",
    "traffic_light",
    "fire_hydrant",
    "stop_sign",
    "parking_meter",
    "sports_ball",
    "baseball_bat",
    "baseball_glove",
    "tennis_racket",
    "wine_glass",
    "hot_dog",
    "potted_plant",
    "dining_table",
    "cell_phone",
    "teddy_bear",
    "hair_drier",
)


@pytest.fixture
def hub_folder(tmp_path):
    """torch's hub cache in a folder that is removed: full-size files are large."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    yield tmp_path / "hub"
    torch.hub.set_dir(before)
    shutil.rmtree(tmp_path)


# label names


def test_the_table_holds_coco_and_voc_and_nothing_twice():
    assert len(COCO_NAMES) == 80 and {canonical(name) for name in COCO_NAMES} == set(SPELLINGS)
    voc = load_vocabulary("voc-1").classes
    assert len(voc) == 20 and {canonical(name) for name in voc} == set(voc) <= set(SPELLINGS)
    spelled = [word for ours, others in SPELLINGS.items() for word in (ours, *others)]
    assert len(spelled) == len(set(spelled))


@pytest.mark.parametrize("name", MMDETECTION)
def test_mmdetections_spellings_are_known(name):
    assert canonical(name) in SPELLINGS


def test_a_users_own_words_stay_apart():
    for name in ("forklift", "hard hat", "pallet", "air", "hotdogs"):
        assert canonical(name) == name and name not in SPELLINGS


# torchvision


def test_torchvision_coco_runs_on_a_picture(hub_folder):
    """The published file's name in torch's hub cache is found without a network, and the paper's
    seen classes can be asked for."""
    file = hub_folder / "checkpoints" / PurePosixPath(COCO.url).name
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    model = build_coco()
    assert sum(p.numel() for p in model.parameters()) == COCO.meta["num_params"] == 46_359_409
    torch.save(model.state_dict(), file)
    detector = load_detector("torchvision", "coco", score_threshold=0.0, device="cpu")
    assert len(detector.known) == 80
    theirs, ours = model.state_dict(), detector.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    # As published it enlarges to 800 pixels and looks at 1,000 regions: minutes on a CPU.
    detector.model.transform.min_size, detector.model.rpn._post_nms_top_n["testing"] = (256,), 40
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    (found,) = detector.detect([picture], load_vocabulary("voc-1").seen)
    assert found.masks.shape[1:] == (256, 256)
    assert set(found.labels) <= set(load_vocabulary("voc-1").seen)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionResetError("no route to host")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


def test_torchvision_coco_without_a_network_names_the_file_and_the_setting(hub_folder, no_network):
    match = r"maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth \(177 MB\).*no route.*detector.weights"
    with pytest.raises(ConnectionError, match=match):
        load_detector("torchvision", "coco", device="cpu")


def test_offline_mode_downloads_nothing(hub_folder, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE is set.*detector.weights"):
        load_detector("torchvision", "coco", device="cpu")


def test_torchvision_coco_refuses_another_models_file(tmp_path, hub_folder):
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet.pth: weights of another model: .* are missing"):
        load_detector("torchvision", "coco", weights=tmp_path / "resnet.pth", device="cpu")


# transformers


def write_mask2former(folder, config=None, **sizes):
    config = config or Mask2FormerConfig(
        backbone_config=SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=8,
        dim_feedforward=8, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
        num_queries=5, id2label=dict(enumerate(sizes.get("names", ["couch", "zebra"]))),
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(config)
    model.save_pretrained(folder)
    side = sizes.get("side", 64)
    Mask2FormerImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
    return model


def test_mask2former_swin_tiny_coco_at_full_size(hub_folder, tmp_path):
    """The numbers of facebook/mask2former-swin-tiny-coco-instance: 47 M weights, 384 pixels."""
    torch.manual_seed(0)
    model = write_mask2former(tmp_path, Mask2FormerConfig(
        backbone_config=SwinConfig(
            image_size=224, embed_dim=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24],
            window_size=7, drop_path_rate=0.3,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        num_queries=100, id2label=dict(enumerate(COCO_NAMES)),
    ), side=384)  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(47.4e6, rel=0.02)
    detector = load_detector("transformers", tmp_path, score_threshold=0.0, device="cpu")
    assert detector.known == tuple(sorted(SPELLINGS)) and detector.size["height"] == 384
    picture = np.random.default_rng(0).integers(0, 256, (256, 320, 3), dtype=np.uint8)
    (found,) = detector.detect([picture])
    assert found.masks.shape[1:] == (256, 320) and len(found) <= 100


def test_a_picture_in_which_mask2former_finds_nothing(tmp_path):
    torch.manual_seed(0)
    write_mask2former(tmp_path)
    random = np.random.default_rng(0)
    pictures = [random.integers(0, 256, (*hw, 3), dtype=np.uint8) for hw in ((64, 64), (40, 90))]
    detector = load_detector("transformers", tmp_path, score_threshold=0.99, device="cpu")
    found = detector.detect(pictures)
    assert [len(one) for one in found] == [0, 0]
    assert [one.masks.shape for one in found] == [(0, 64, 64), (0, 40, 90)]
    assert [one.boxes.shape for one in found] == [(0, 4), (0, 4)]
    assert found[0].merged("zebra") == (None, 0.0, 0)


def test_mask2former_weights_may_be_a_file_of_their_own(tmp_path, hub_folder):
    """A hub checkpoint that has only pytorch_model.bin, under the names that transformers
    published them by (it has renamed half of them since)."""
    model = write_mask2former(tmp_path)
    published = load_file(tmp_path / "model.safetensors")
    assert set(published) != set(model.state_dict())
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(OSError, match="expected a folder with config.json.*model.safetensors"):
        load_detector("transformers", tmp_path, device="cpu")
    torch.save(published, tmp_path / "pytorch_model.bin")
    detector = load_detector("transformers", tmp_path, weights=tmp_path / "pytorch_model.bin",
                             device="cpu")  # fmt: skip
    theirs, ours = model.state_dict(), detector.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_mask2former_out_of_reach_says_what_to_do(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="'nobody/none': expected a folder with.*`hf download`"):
        load_detector("transformers", "nobody/none", revision="abc", device="cpu")


def test_mask2former_refuses_half_a_download(tmp_path):
    write_mask2former(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut short or damaged.*half a download.*Bring it again"):
        load_detector("transformers", tmp_path, device="cpu")


def test_mask2former_refuses_weights_of_another_size(tmp_path):
    """transformers itself would fill the holes with random weights and go on."""
    write_mask2former(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(values | {"dim_feedforward": 16}))
    with pytest.raises(ValueError, match="another model.*have another shape.*one checkpoint"):
        load_detector("transformers", tmp_path, device="cpu")


def test_other_kinds_of_checkpoints_are_refused(tmp_path):
    MaskFormerConfig().save_pretrained(tmp_path / "maskformer")
    with pytest.raises(ValueError, match="of type 'maskformer': expected a Mask2Former"):
        load_detector("transformers", tmp_path / "maskformer", device="cpu")
    for names in (["person", "sky-other-merged"], ["wall", "sky"], ["person", "floor-merged"]):
        folder = tmp_path / names[1]
        write_mask2former(folder, names=names)
        with pytest.raises(ValueError, match=f"labels stuff .{names[1]}.*instance sibling"):
            load_detector("transformers", folder, device="cpu")


# settings and the device


@pytest.mark.parametrize("line, match", [
    ("backend: yolo", "detector.backend: expected torchvision, detectron2 or transf.*'yolo'"),
    ("score_threshold: 30", r"detector.score_threshold: expected a number from 0 .*, got 30"),
])  # fmt: skip
def test_wrong_settings_are_refused_before_any_work(tmp_path, line, match):
    (tmp_path / "mine.yaml").write_text(f"detector: {{{line}}}\n")
    with pytest.raises(ValueError, match=match):
        load_params(str(tmp_path / "mine.yaml"))


def test_a_revision_needs_a_hub(tmp_path):
    with pytest.raises(ValueError, match="detector.revision: only the hub ids of the backend 'tr"):
        load_detector("torchvision", "coco", revision="main", device="cpu")
    with pytest.raises(ValueError, match="detector.revision: expected null, since.* is a folder"):
        load_detector("transformers", str(tmp_path), revision="main", device="cpu")


def test_a_folder_takes_no_other_weights(tmp_path):
    with pytest.raises(ValueError, match="has weights of its own; set it to null, or .* to 'coco'"):
        load_detector("torchvision", tmp_path, weights="w.pth", device="cpu")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"'cuda:7' is not available here.*auto, cpu or cuda"):
        load_detector("torchvision", "coco", device="cuda:7")


class Greedy(Detector):
    """Fits `room` pictures; finds one dog, whose score is the picture's first pixel."""

    def __init__(self, room: int):
        super().__init__(["dog"], score_threshold=0.0, batch_size=8)
        self.room, self.tried = room, []

    def predict(self, images):
        self.tried.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [(np.ones((1, 4, 4), bool), [image[0, 0, 0] / 255], ["dog"], np.zeros((1, 4)))
                for image in images]  # fmt: skip


def test_out_of_memory_halves_the_batch_and_goes_on():
    detector = Greedy(room=3)
    pictures = [np.full((4, 4, 3), i, np.uint8) for i in range(11)]
    found = detector.detect(pictures)
    np.testing.assert_allclose([float(f.scores[0]) for f in found], np.arange(11) / 255, rtol=1e-6)
    assert detector.tried == [8, 4, 2, 2, 2, 2, 2, 1]  # what did not fit is not tried again
    detector.detect(pictures[:2])
    assert detector.tried[-1] == 2


def test_one_picture_too_large_says_so():
    with pytest.raises(OutOfMemory, match="single item.*smaller detector.*2.00 GiB"):
        Greedy(room=0).detect([np.zeros((4, 4, 3), np.uint8)])
