"""Segmenters: the loss against transformers' own, training, resuming, and the three stages.

The backbone here is random; what a trained one is worth is measured in docs/microworld.md.
"""

import dataclasses

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex
from transformers import MaskFormerForInstanceSegmentation
from transformers import ResNetForImageClassification as Classifier

from ml.datasets.drawn import label_maps, scene_classes
from ml.drawn_world.world import CLASSES, draw_scene, scene_seed
from ml.images.png import decode_png, encode_png
from ml.metrics.iou import confusions, miou
from ml.pipeline.runner import run_stage
from ml.pipeline.stages.benchmark_scores import read_scores
from ml.pipeline.workspace import Workspace
from ml.segmenters import architecture, load_segmenter, maskformer, prediction
from ml.segmenters import training as loop
from ml.segmenters.mask_loss import make_targets, mask_loss
from ml.segmenters.pictures import batch_of, batches
from ml.settings.profile import load_params
from ml.store.making import write_shards
from ml.store.manifest import Manifest, describe_files, read_manifest, write_manifest
from ml.store.schemas import SYNTHETIC
from ml.store.shards import read_shards
from ml.words.vocabulary import Vocabulary, load_vocabulary
from tests.builders.tiny import tiny_backbone

VOCABULARY = load_vocabulary("voc-1")
NAMES = ["background", *VOCABULARY.classes]


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    return tiny_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="session")
def scenes():
    drawn = [draw_scene(scene_seed("test", i)) for i in range(12)]
    return np.stack([s.image for s in drawn]), label_maps(drawn, VOCABULARY)


def settings(**changes):
    small = {"batch_size": 4, "scale": 1, "warm_up": 0, "ema_decay": 0.0, "class_weight": 1.0}
    small |= changes
    return dataclasses.replace(load_params().segmenter, **small)


def fresh(backbone, chosen):
    torch.manual_seed(0)
    return maskformer.build(backbone, NAMES, chosen)


# --- the loss -----------------------------------------------------------------------------------


def random_logits(seed: int, side: int):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randn(2, 3, 8, 22, generator=generator)
    return classes, 3 * torch.randn(2, 3, 8, side, side, generator=generator)


@pytest.mark.parametrize(("side", "weight"), [(32, 1.0), (64, 1.0), (64, 2.0)])
def test_loss_equals_that_of_transformers(backbone, scenes, side, weight):
    """Two decoder layers, three pictures, no ignored pixel: theirs is the reference."""
    model = fresh(backbone, settings(steps=1, class_weight=weight))
    model.criterion.matcher.cost_class = weight  # theirs weighs classes in the loss alone
    labels = torch.from_numpy(scenes[1][:3])
    classes, masks = random_logits(0, side)
    wanted = [row.unique().long() for row in labels]
    truth = [(row == w[:, None, None]).float() for row, w in zip(labels, wanted, strict=True)]
    auxiliary = [{"masks_queries_logits": masks[0], "class_queries_logits": classes[0]}]
    theirs = model.get_loss(model.get_loss_dict(masks[1], classes[1], truth, wanted, auxiliary))
    ours = mask_loss(classes, masks, make_targets(labels), class_weight=weight)
    assert ours.item() == pytest.approx(theirs.item())


def test_the_rate_rises_and_falls(backbone, scenes, tmp_path):
    """By hand: a third, two thirds, all of 0.003 over three steps, times what is left of six."""
    chosen = settings(steps=6, learning_rate=0.003, warm_up=3, poly_power=1.0)
    curve = loop.train(fresh(backbone, chosen), *scenes, chosen, tmp_path, 0)
    expected = [0.001 * 6 / 6, 0.002 * 5 / 6, 0.003 * 4 / 6, 0.003 * 3 / 6, 0.001, 0.0005]
    assert [row["learning_rate"] for row in curve] == pytest.approx(expected)


def test_ignored_pixels_train_nothing(scenes):
    labels = torch.from_numpy(scenes[1][:3].copy())
    labels[:, 20:40, 10:50] = 255
    classes, masks = random_logits(1, 64)
    masks.requires_grad_()
    loss = mask_loss(classes, masks, make_targets(labels))
    loss.backward()
    hole = masks.grad[..., 20:40, 10:50]
    assert hole.abs().max() == 0
    assert masks.grad.abs().max() > 0
    other = masks.detach().clone()
    other[..., 20:40, 10:50] = -other[..., 20:40, 10:50]
    assert mask_loss(classes, other, make_targets(labels)).item() == loss.item()


def test_loss_with_a_hole_is_the_loss_of_what_is_left(scenes):
    """Ignoring the right half gives what the left half alone gives."""
    labels = torch.from_numpy(scenes[1][:3].copy())
    classes, masks = random_logits(2, 64)
    left = mask_loss(classes, masks[..., :32], make_targets(labels[..., :32]))
    labels[..., 32:] = 255
    assert mask_loss(classes, masks, make_targets(labels)).item() == pytest.approx(left.item())


def test_targets_by_hand():
    targets = make_targets(torch.tensor([[[0, 0, 7]], [[255, 3, 255]]], dtype=torch.uint8))
    assert targets.classes.tolist() == [[0, 7], [3, -1]]
    assert targets.masks[0].tolist() == [[[1, 1, 0]], [[0, 0, 1]]]
    assert targets.masks[1].tolist() == [[[0, 1, 0]], [[0, 0, 0]]]
    assert targets.counts[:, 0, 0].tolist() == [[1, 1, 1], [0, 1, 0]]


def test_a_picture_without_any_counted_pixel_is_survived():
    labels = torch.full((3, 64, 64), 255, dtype=torch.uint8)
    assert torch.isfinite(mask_loss(*random_logits(3, 32), make_targets(labels)))


# --- the model ----------------------------------------------------------------------------------


def test_build_takes_the_trained_backbone(backbone):
    model = fresh(backbone, settings(steps=1))
    trained = Classifier.from_pretrained(backbone).resnet.state_dict()
    own = maskformer.backbone_of(model).state_dict()
    assert own and all(torch.equal(own[name], trained[name]) for name in own)
    assert [model.config.id2label[i] for i in range(21)] == NAMES


def test_label_scores_equal_transformers_post_processing(backbone, scenes):
    """The published inference rule, by their image processor."""
    from transformers import MaskFormerImageProcessor

    model = fresh(backbone, settings(steps=1)).eval()
    pixels = torch.from_numpy(scenes[0][:2]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        ours = maskformer.label_scores(model, pixels).argmax(1)
        output = model(pixels)
    theirs = MaskFormerImageProcessor().post_process_semantic_segmentation(
        output, target_sizes=[(64, 64)] * 2
    )
    # They enlarge the scores, we the masks: a few pixels on a boundary may go the other way.
    assert (ours == torch.stack(theirs)).float().mean() > 0.98


def test_refused(backbone, tmp_path):
    with pytest.raises(ValueError, match="expected one of"):
        architecture("unet")
    with pytest.raises(ValueError, match="segmenter.backbone"):
        maskformer.build(tmp_path, NAMES, settings(steps=1))
    with pytest.raises(ValueError, match="no segmenter in"):
        load_segmenter(tmp_path)
    with pytest.raises(ValueError, match="uint8"):
        prediction.predict(fresh(backbone, settings(steps=1)), np.zeros((1, 64, 64, 3)))


# --- training -----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def trained(backbone, scenes, tmp_path_factory):
    """A model that was shown two pictures over and over."""
    chosen = settings(steps=120, batch_size=2, learning_rate=3e-3, backbone_lr_factor=1.0)
    model, two = fresh(backbone, chosen), (scenes[0][:2], scenes[1][:2])
    curve = loop.train(model, *two, chosen, tmp_path_factory.mktemp("progress"), seed=0)
    return model, curve


def test_training_learns(trained, scenes):
    model, curve = trained
    losses = [row["loss"] for row in curve]
    assert len(losses) == 120
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:5])
    assert curve[0]["learning_rate"] == pytest.approx(3e-3)
    assert curve[-1]["learning_rate"] == pytest.approx(3e-3 / 120)
    counts = confusions(prediction.predict(model, scenes[0][:2]), scenes[1][:2], 20).sum(0)
    assert miou(counts, range(1, 21)) > 0.1  # 0.43 here; a picture all background would be 0


def test_save_load_predict(trained, scenes, tmp_path):
    model = trained[0]
    model.save_pretrained(tmp_path)
    again = load_segmenter(tmp_path)
    assert isinstance(again, MaskFormerForInstanceSegmentation)
    assert not again.training
    expected = prediction.predict(model, scenes[0])
    assert expected.dtype == np.uint8 and expected.shape == (12, 64, 64)
    np.testing.assert_array_equal(prediction.predict(again, scenes[0]), expected)
    assert again.config.id2label == dict(enumerate(NAMES))


def test_resumed_training_equals_uninterrupted(backbone, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 4)
    chosen = settings(steps=9)
    whole = fresh(backbone, chosen)
    expected = loop.train(whole, *scenes, chosen, tmp_path / "a", seed=3)

    calls = 0

    def killed(*arguments):
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return original(*arguments)

    original = maskformer.loss
    monkeypatch.setattr(maskformer, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.train(fresh(backbone, chosen), *scenes, chosen, tmp_path / "b", seed=3)
    monkeypatch.setattr(maskformer, "loss", original)
    resumed = fresh(backbone, chosen)
    curve = loop.train(resumed, *scenes, chosen, tmp_path / "b", seed=3)
    assert calls == 7
    assert curve == expected
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_batches_show_every_picture_once_an_epoch():
    kept = np.arange(100, 117)
    seen = np.concatenate([batch_of(kept, 5, 0, step)[0] for step in range(1, 35)])
    for epoch in seen.reshape(10, 17):
        assert sorted(epoch) == list(kept)
    assert not np.array_equal(seen[:17], seen[17:34])


def test_flip_turns_picture_and_labels_together(scenes):
    images, labels = scenes
    chosen, flips = batch_of(np.arange(12), 4, 5, 1)
    assert 0 < flips.sum() < 4
    ((_, pictures, truth),) = batches(
        images, labels, np.arange(12), settings(), 5, [1], range(4), 20
    )
    for picture, label, place, flip in zip(pictures, truth, chosen, flips, strict=True):
        turn = slice(None, None, -1 if flip else 1)
        np.testing.assert_array_equal(picture, images[place][:, turn])
        np.testing.assert_array_equal(label, labels[place][:, turn])


# --- the stages ---------------------------------------------------------------------------------


def test_scene_classes_are_balanced_and_distinct():
    dealt = scene_classes([1, 2, 2, 3, 1, 5] * 30, VOCABULARY, 0)
    assert [len(hand) for hand in dealt[:6]] == [1, 2, 2, 3, 1, 3]
    assert all(len(set(hand)) == len(hand) for hand in dealt)
    numbers = pd.Series([name for hand in dealt for name in hand]).value_counts()
    assert len(numbers) == 20
    assert numbers.max() - numbers.min() <= 2
    assert dealt == scene_classes([1, 2, 2, 3, 1, 5] * 30, VOCABULARY, 0)
    with pytest.raises(ValueError, match="cannot draw.*zebra"):
        scene_classes([1], Vocabulary("mine", ("zebra", "dog"), (), {}), 0)


def test_label_maps_follow_names_not_places():
    """VOC's order and the alphabet differ (tvmonitor and train), so places would mislabel."""
    scene = draw_scene(scene_seed("test", 0), classes=["train", "tvmonitor"])
    (labels,) = label_maps([scene], VOCABULARY)
    for name, mask in zip(scene.classes, scene.masks, strict=True):
        assert set(labels[mask]) == {sorted(CLASSES).index(name) + 1}
    assert not labels[~scene.masks.any(0)].any()


def synthetic_folder(workspace: Workspace, accepted: list[bool]) -> None:
    """A finished `synthetic_dataset`, its pictures drawn, with a band of uncertain pixels."""
    folder = workspace.folder("synthetic_dataset")
    drawn = [draw_scene(scene_seed("test", 100 + i)) for i in range(len(accepted))]
    labels = label_maps(drawn, VOCABULARY)
    labels[:, :3] = 255
    frame = pd.DataFrame(
        [
            {name: None for name in SYNTHETIC.names}
            | {
                "key": f"synthetic-{i:06d}",
                "entities": list(scene.classes),
                "accepted": flag,
                "image": encode_png(scene.image),
                "label": encode_png(label),
            }
            for i, (scene, label, flag) in enumerate(zip(drawn, labels, accepted, strict=True))
        ]
    )
    rows = write_shards(folder, "recipe", [list(range(len(accepted)))], lambda _: frame, SYNTHETIC)
    write_manifest(
        folder, Manifest("synthetic_dataset", 1, {}, {}, describe_files(folder, rows), {})
    )


@pytest.fixture(scope="session")
def made(backbone, tmp_path_factory):
    """The folders of the three stages after two steps of training."""
    root = tmp_path_factory.mktemp("root")
    params = load_params()
    params = dataclasses.replace(
        params,
        segmenter=settings(steps=2, backbone=str(backbone)),
        benchmark=dataclasses.replace(params.benchmark, bootstrap=50),
    )
    workspace = Workspace(root, params.profile)
    synthetic_folder(workspace, [True] * 9 + [False] * 3)
    names = ("benchmark", "segmenter", "real_bound", "benchmark_scores")
    return params, workspace, {name: run_stage(name, params, root) for name in names}


@pytest.mark.parametrize("stage", ["segmenter", "real_bound"])
def test_training_stages(made, stage):
    _, workspace, reports = made
    folder = workspace.folder(stage)
    facts = reports[stage].facts
    assert facts["pictures"] == 9  # the rejected three are not trained on
    assert facts["steps"] == 2
    assert len(pd.read_csv(folder / "curve.csv")) == 2
    assert set(read_manifest(folder).files) == {
        "contact_sheet.jpg",
        "curve.csv",
        "metrics.json",
        "model/config.json",
        "model/model.safetensors",
    }
    assert not (folder / ".progress").exists()
    assert load_segmenter(folder / "model").config.id2label[1] == VOCABULARY.classes[0]
    assert facts["ignored_share"] == pytest.approx(3 / 64 if stage == "segmenter" else 0)


def test_benchmark_scores_are_those_of_the_saved_model(made):
    """Scored again from the model's folder and the benchmark's shards, with torchmetrics."""
    _, workspace, reports = made
    rows = read_shards(workspace.folder("benchmark"))
    images = np.stack([decode_png(data) for data in rows.image])
    labels = torch.from_numpy(np.stack([decode_png(data) for data in rows.label])).long()
    found = prediction.predict(load_segmenter(workspace.folder("segmenter") / "model"), images)
    judge = MulticlassJaccardIndex(21, average="none", ignore_index=255)
    iou = 100 * judge(torch.from_numpy(found).long(), labels).numpy()
    of = dict(zip(NAMES, iou.tolist(), strict=True))
    seen, unseen = (
        np.mean([of[name] for name in names]) for names in (VOCABULARY.seen, VOCABULARY.unseen)
    )
    facts = reports["benchmark_scores"].facts["synthetic"]
    assert facts["background"] == pytest.approx(of["background"], abs=1e-3)
    assert facts["seen"] == pytest.approx(seen, abs=1e-3)
    assert facts["unseen"] == pytest.approx(unseen, abs=1e-3)
    assert facts["all"] == pytest.approx(np.mean(iou[1:]), abs=1e-3)
    assert facts["per_class"] == pytest.approx({name: of[name] for name in NAMES[1:]}, abs=1e-3)
    low, high = facts["intervals"]["background"]
    assert low <= facts["background"] <= high


def test_benchmark_scores_keep_each_picture(made):
    _, workspace, _ = made
    file = workspace.folder("benchmark_scores") / "scores.parquet"
    keys, stack = read_scores(file)
    assert stack.shape == (400, 21, 21) and len(set(keys)) == 400
    assert (stack.sum((1, 2)) == 64 * 64).all()  # every pixel of the benchmark counts
    assert pq.read_table(file).num_rows == 800
    assert file.stat().st_size < 500_000


def test_second_run_does_nothing(made):
    params, workspace, reports = made
    for name in ("segmenter", "real_bound", "benchmark_scores"):
        again = run_stage(name, params, workspace.root)
        assert again.cached and again.digest == reports[name].digest


def test_no_accepted_picture_is_refused(made, tmp_path):
    params, _, _ = made
    synthetic_folder(Workspace(tmp_path, params.profile), [False] * 3)
    with pytest.raises(ValueError, match="none of the 3 pictures"):
        run_stage("segmenter", params, tmp_path)
