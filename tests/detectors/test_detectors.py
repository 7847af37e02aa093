"""Detectors: merged masks, label names, what comes back, geometry, and the committed checkpoint."""

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights
from torchvision.models.detection.roi_heads import project_masks_on_boxes
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorFast,
    SwinConfig,
)

from ml.detectors import Detector, Instances, load_detector
from ml.detectors.maskrcnn import build_maskrcnn, save_maskrcnn
from ml.detectors.maskrcnn_config import MaskRCNNConfig
from ml.detectors.pasting import SubpixelTransform, paste
from ml.detectors.transformers_mask2former import TransformersMask2Former
from ml.drawn_world.world import CLASSES, draw_scene, scene_seed
from ml.images.boxes import mask_box
from ml.settings.profile import ROOT
from ml.words.spellings import canonical

TINY = MaskRCNNConfig(
    classes=("couch", "tv", "zebra"),
    hidden_sizes=(8, 8, 8, 8),
    depths=(1, 1, 1, 1),
    embedding_size=8,
    image_size=(64, 128),
    fpn_channels=8,
    box_head=8,
    mask_head=(8,),
    mask_pool=7,
)


def square(x1: int, y1: int, x2: int, y2: int, side: int = 8) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def two_dogs_and_a_car() -> Instances:
    return Instances(
        masks=np.stack([square(0, 0, 2, 2), square(4, 4, 8, 8), square(1, 1, 3, 3)]),
        scores=np.array([0.9, 0.8, 0.6], np.float32),
        labels=("dog", "car", "dog"),
        boxes=np.array([(0, 0, 2, 2), (4, 4, 8, 8), (1, 1, 3, 3)], np.float32),
    )


def test_merged_covers_every_instance_of_the_class():
    """The paper's official code kept the first instance only: the second dog became background."""
    mask, score, count = two_dogs_and_a_car().merged("dog")
    assert mask.sum() == 4 + 4 - 1  # two squares of four pixels that share one
    assert mask[0, 0] and mask[2, 2] and not mask[5, 5]
    assert score == pytest.approx(0.9) and count == 2


def test_merged_of_an_absent_class_is_nothing():
    assert two_dogs_and_a_car().merged("cat") == (None, 0.0, 0)


@pytest.mark.parametrize(
    "field, value", [
        ("masks", np.zeros((3, 8, 8), np.uint8)),
        ("scores", np.zeros(3)),
        ("boxes", np.zeros((3, 5), np.float32)),
    ])  # fmt: skip
def test_instances_refuse_wrong_arrays(field, value):
    with pytest.raises(ValueError, match=f"{field}: expected .* got "):
        replace(two_dogs_and_a_car(), **{field: value})


@pytest.mark.parametrize(
    "theirs, ours", [
        ("airplane", "aeroplane"), ("couch", "sofa"), ("potted plant", "pottedplant"),
        ("tv", "tvmonitor"), ("dining table", "diningtable"), ("motorcycle", "motorbike"),
        ("Person", "person"), ("dining_table", "diningtable"), ("aeroplane", "aeroplane"),
        ("zebra", "zebra"),
    ])  # fmt: skip
def test_label_names_become_ours(theirs, ours):
    assert canonical(theirs) == ours


def test_coco_names_reach_all_of_voc():
    """A COCO name that is not mapped would make its VOC class impossible to ask for."""
    coco = {canonical(name) for name in MaskRCNN_ResNet50_FPN_V2_Weights.DEFAULT.meta["categories"]}
    assert set(CLASSES) <= coco


class Fixed(Detector):
    """Finds the same four things in every picture, worst first."""

    def predict(self, images):
        masks = np.stack([square(0, 0, i, i) for i in (4, 3, 2, 1)])
        boxes = np.zeros((4, 4), np.float32)
        names = ["dog", "couch", "dog", "zebra"]
        return [(masks, np.array([0.2, 0.5, 0.6, 0.9]), names, boxes) for _ in images]


def fixed(**changes) -> Fixed:
    return Fixed(["dog", "couch", "zebra"], **{"score_threshold": 0.4, "batch_size": 2} | changes)


PICTURE = np.zeros((8, 8, 3), np.uint8)


def test_only_the_classes_asked_for_come_back():
    """A labeller of seen classes must not see an unseen one, however sure the detector is."""
    found = fixed().detect([PICTURE] * 3, ["dog", "sofa"])
    assert [f.labels for f in found] == [("dog", "sofa")] * 3  # best first; 0.2 is too low
    assert fixed().detect([PICTURE])[0].labels == ("zebra", "dog", "sofa")


def test_labels_are_the_names_asked_for():
    assert fixed().detect([PICTURE], ["couch"])[0].labels == ("couch",)


def test_unknown_class_is_refused_with_what_is_known():
    with pytest.raises(ValueError, match="'giraffe'.*knows: dog, sofa, zebra"):
        fixed().detect([PICTURE], ["dog", "giraffe"])


def test_one_class_under_two_names_is_refused():
    with pytest.raises(ValueError, match="'couch' and 'sofa' are one class"):
        fixed().detect([PICTURE], ["couch", "sofa"])


def test_wrong_pictures_are_refused():
    with pytest.raises(ValueError, match=r"image 1: expected uint8 \(H,W,3\), got float32"):
        fixed().detect([PICTURE, PICTURE.astype(np.float32)])


def test_unknown_backend_is_refused():
    with pytest.raises(ValueError, match="expected one of .*detectron2.*got 'yolo'"):
        load_detector("yolo", "x")


@pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is not None, reason="detectron2 is installed here"
)
def test_missing_detectron2_says_how_to_install_it():
    with pytest.raises(ImportError, match="no-build-isolation .*'git.*detectron2.git'"):
        load_detector("detectron2", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")


@pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is not None, reason="detectron2 is installed here"
)
def test_detectron2_that_lacks_a_part_says_which(tmp_path, monkeypatch):
    """Its model zoo imports pkg_resources, which setuptools dropped: an import error too, but
    "not installed" would send its user round in a circle."""
    (tmp_path / "detectron2" / "model_zoo").mkdir(parents=True)
    (tmp_path / "detectron2" / "__init__.py").write_text("")
    (tmp_path / "detectron2" / "model_zoo" / "__init__.py").write_text("import no_such_resources")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"(?s)lacks a part .*no_such_res.*setuptools<81"):
        load_detector("detectron2", "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x.yaml")
    for name in ("detectron2", "detectron2.model_zoo"):
        sys.modules.pop(name, None)


def test_a_picture_in_which_torchvision_finds_nothing(tmp_path):
    save_maskrcnn(build_maskrcnn(TINY), TINY, tmp_path)
    detector = load_detector("torchvision", tmp_path, score_threshold=1.0, device="cpu")
    (found,) = detector.detect([np.zeros((40, 90, 3), np.uint8)])
    assert (found.masks.shape, found.boxes.shape) == ((0, 40, 90), (0, 4))


def test_torchvision_checkpoint_round_trip(tmp_path):
    torch.manual_seed(0)
    model = build_maskrcnn(TINY).half().float().eval()  # what float16 in the file can hold
    save_maskrcnn(model, TINY, tmp_path)
    detector = load_detector("torchvision", tmp_path, score_threshold=0.0, device="cpu")
    assert detector.known == ("sofa", "tvmonitor", "zebra")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((64, 64), (40, 90))]
    found = detector.detect(images)
    with torch.inference_mode():
        model.roi_heads.score_thresh = 0.0
        wanted = model([torch.tensor(image).permute(2, 0, 1) / 255 for image in images])
    for image, ours, theirs in zip(images, found, wanted, strict=True):
        assert ours.masks.shape[1:] == image.shape[:2]
        drawn = (theirs["masks"][:, 0] > 0.5).flatten(1).any(1)  # an empty mask is no instance
        assert drawn.any()
        np.testing.assert_allclose(ours.scores, theirs["scores"][drawn], atol=1e-6)
        np.testing.assert_allclose(ours.boxes, theirs["boxes"][drawn], atol=1e-4)


def test_missing_checkpoint_says_where_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="train_detector"):
        load_detector("torchvision", tmp_path / "nowhere")


def test_full_size_is_built_by_the_same_function():
    """ResNet-50's numbers in config.json; on the meta device, so without memory or time."""
    coco = MaskRCNNConfig(
        classes=tuple(str(i) for i in range(90)),
        hidden_sizes=(256, 512, 1024, 2048),
        depths=(3, 4, 6, 3),
        embedding_size=64,
        layer_type="bottleneck",
        image_size=(800, 1333),
        anchor_sizes=(32, 64, 128, 256),
        fpn_channels=256,
        box_head=1024,
        mask_head=(256, 256, 256, 256),
        mask_pool=14,
        proposals=1000,
        detections=100,
    )
    with torch.device("meta"):
        model = build_maskrcnn(coco)
    # 44.4 M is torchvision's own maskrcnn_resnet50_fpn, which has a fifth FPN level without weights
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(44.4e6, rel=0.01)


def test_paste_puts_a_mask_at_its_exact_place():
    """A full mask on the box x 1.5..4.5, y 2..5 covers the pixels whose centres lie inside."""
    picture = paste(torch.ones(1, 1, 6, 6), torch.tensor([[1.5, 2.0, 4.5, 5.0]]), (8, 8))[0, 0]
    inside = square(2, 2, 4, 5)
    assert (picture[torch.from_numpy(inside)] == 1).all()
    # Centre 1.5 and 4.5 lie on the edge of the box: half of the mask, half of nothing.
    assert picture[3, 1] == pytest.approx(0.5) and picture[3, 4] == pytest.approx(0.5)
    assert picture[:, :1].sum() == 0 and picture[:, 5:].sum() == 0 and picture[5:].sum() == 0


def test_training_targets_and_pasting_agree():
    """True masks, cut out as training cuts them and pasted back, are themselves again.

    With torchvision's own pasting the mean is 0.94, and every label of the pipeline is that wrong.
    """
    transform = SubpixelTransform(128, 256, [0.0] * 3, [1.0] * 3).eval()
    ious = []
    for index in range(20):
        masks = torch.from_numpy(draw_scene(scene_seed("test", index)).masks)
        boxes = torch.tensor([mask_box(mask) for mask in masks.numpy()], dtype=torch.float32) * 2
        enlarged = masks.repeat_interleave(2, 1).repeat_interleave(2, 2).float()
        cut = project_masks_on_boxes(enlarged, boxes, torch.arange(len(masks)), 40)
        result = [{"boxes": boxes, "masks": cut[:, None]}]
        pasted = transform.postprocess(result, [(128, 128)], [(64, 64)])[0]["masks"][:, 0] > 0.5
        ious += ((pasted & masks).sum((1, 2)) / (pasted | masks).sum((1, 2))).tolist()
    assert np.mean(ious) > 0.99


def test_mask2former_round_trip(tmp_path):
    torch.manual_seed(0)
    config = Mask2FormerConfig(
        backbone_config=SwinConfig(
            image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=2,
            out_features=["stage1", "stage2", "stage3", "stage4"],
        ),
        feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=8,
        dim_feedforward=8, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
        num_queries=5, id2label={0: "couch", 1: "zebra"},
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(tmp_path)
    Mask2FormerImageProcessorFast(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    detector = load_detector("transformers", tmp_path, score_threshold=0.0, device="cpu")
    assert detector.known == ("sofa", "zebra")
    images = [np.full((h, w, 3), 90, np.uint8) for h, w in ((64, 64), (40, 90))]
    for image, found in zip(images, detector.detect(images, ["sofa"]), strict=True):
        assert found.masks.shape[1:] == image.shape[:2]
        assert set(found.labels) <= {"sofa"}


def test_mask2former_scores_by_class_and_mask():
    """One query: class probability 0.8, mask probability 0.9 inside its mask, so 0.72."""
    detector = TransformersMask2Former.__new__(TransformersMask2Former)
    detector.names, detector.score_threshold = {0: "dog", 1: "cat"}, 0.5
    classes = torch.tensor([[0.8, 0.1, 0.1]]).log()
    masks = torch.full((1, 4, 4), -9.0)
    masks[0, :, :2] = float(np.log(0.9 / 0.1))
    found, scores, names, boxes = detector._one(classes, masks, (4, 4))
    assert names == ["dog"] and scores[0] == pytest.approx(0.72, abs=1e-3)
    assert found[0].sum() == 8 and boxes[0].tolist() == [0, 0, 2, 4]


def test_micro_detector_finds_drawn_objects():
    """The committed checkpoint on 30 scenes that no training draws."""
    detector = load_detector(
        "torchvision", ROOT / "data/foundation/micro/detector", score_threshold=0.3, device="cpu"
    )
    scenes = [draw_scene(scene_seed("test", 500 + index)) for index in range(30)]
    found = detector.detect([scene.image for scene in scenes], CLASSES)
    good = []
    for scene, instances in zip(scenes, found, strict=True):
        for name, drawn in zip(scene.classes, scene.masks, strict=True):
            mask, _, _ = instances.merged(name)
            iou = 0.0 if mask is None else (mask & drawn).sum() / (mask | drawn).sum()
            good.append(iou > 0.7)
    assert np.mean(good) > 0.8
