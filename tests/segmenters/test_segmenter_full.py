"""What the full size adds to the segmenter: backbones, crops, precision, averaging, memory.

The backbones are tiny and random, but of the classes that the full-size ones have.
"""

import dataclasses
import io

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    SegformerConfig,
    SegformerForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTImageProcessor,
)

from ml.images.png import encode_png
from ml.segmenters import backbones, load_segmenter, maskformer, prediction, segformer
from ml.segmenters import training as loop
from ml.segmenters.backbones import load_backbone, prepared
from ml.segmenters.pictures import Encoded, augmented, open_encoded, store_encoded
from ml.settings.profile import load_params
from tests.builders.tiny import tiny_backbone
from tests.segmenters.test_segmenter import NAMES, settings

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A ResNet, a Swin with its preprocessor, and a MiT classifier, random."""
    root = tmp_path_factory.mktemp("backbones")
    tiny_backbone(root / "resnet")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SwinForImageClassification(
            SwinConfig(
                image_size=128,
                embed_dim=16,
                depths=[1, 1, 1, 1],
                num_heads=[1, 2, 2, 4],
                window_size=4,
            )
        ).save_pretrained(root / "swin")
        SegformerForImageClassification(
            SegformerConfig(
                depths=[1, 1, 1, 1],
                hidden_sizes=[8, 16, 24, 32],
                num_attention_heads=[1, 1, 2, 2],
            )
        ).save_pretrained(root / "mit")
    ViTImageProcessor(image_mean=MEAN, image_std=STD).save_pretrained(root / "swin")
    return root


def drawn(count: int, size: tuple[int, int] = (64, 64)) -> tuple[list, list]:
    """Pictures with a bright box of class 1 or 2 on a dark ground, and a column of 255."""
    rng = np.random.default_rng(count)
    images, labels = [], []
    for _ in range(count):
        label = np.zeros(size, np.uint8)
        top, left = rng.integers(0, 24, 2)
        label[top : top + 24, left : left + 24] = rng.integers(1, 3)
        colours = np.array([(20, 20, 20), (250, 40, 40), (40, 250, 40)], np.uint8)
        images.append(colours[label])
        label[:, -2:] = 255
        labels.append(label)
    return images, labels


def build(folder, chosen, arch=maskformer):
    torch.manual_seed(0)
    return arch.build(folder, NAMES, chosen)


# --- backbones ----------------------------------------------------------------------------------


def test_swin_backbone_sees_what_the_classifier_saw(folders):
    """The body's weights are put under other names; its last features must not change."""
    model = build(folders / "swin", settings()).eval()
    classifier = SwinForImageClassification.from_pretrained(folders / "swin").eval()
    pixels = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = maskformer.backbone_of(model).model(pixels).last_hidden_state
        theirs = classifier.swin(pixels).last_hidden_state
    torch.testing.assert_close(own, theirs)


def test_pixels_are_normalised_as_the_backbone_was(folders, tmp_path):
    model = build(folders / "swin", settings())
    assert (model.config.pixel_mean, model.config.pixel_std) == (MEAN, STD)
    pixels = torch.rand(1, 3, 8, 8)
    expected = (pixels - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(prepared(model.config, pixels), expected)
    plain = build(folders / "resnet", settings())
    assert torch.equal(prepared(plain.config, pixels), pixels)
    model.save_pretrained(tmp_path)
    again = load_segmenter(tmp_path)
    torch.testing.assert_close(prepared(again.config, pixels), expected)
    images = np.stack(drawn(2)[0])
    expected = prediction.predict(model, images)
    np.testing.assert_array_equal(prediction.predict(again, images), expected)


def test_segformer_loss_is_that_of_transformers(folders):
    model = build(folders / "mit", settings(width=16), segformer).eval()
    pixels = torch.rand(2, 3, 64, 64)
    labels = torch.from_numpy(np.stack(drawn(2)[1]))
    theirs = model(pixels, labels=labels.long()).loss
    torch.testing.assert_close(segformer.loss(model, pixels, labels), theirs)
    first = [
        segformer.loss(model, pixels[i : i + 1], labels[i : i + 1], segformer.sizes(model, labels))
        for i in range(2)
    ]
    torch.testing.assert_close(sum(first), theirs)
    blank = torch.full_like(labels, 255)
    assert segformer.loss(model, pixels, blank).item() == 0


def test_segformer_learns_in_the_same_loop_and_is_found_again(folders, tmp_path):
    chosen = settings(
        architecture="segformer",
        width=16,
        steps=60,
        batch_size=4,
        learning_rate=1e-2,
        backbone_lr_factor=1.0,
    )
    model = build(folders / "mit", chosen, segformer)
    curve = loop.train(model, *drawn(4), chosen, tmp_path / "progress", seed=0)
    assert np.mean([row["loss"] for row in curve[-5:]]) < 0.5 * curve[0]["loss"]
    model.save_pretrained(tmp_path / "model")
    images = np.stack(drawn(4)[0])
    again = prediction.predict(load_segmenter(tmp_path / "model"), images)
    np.testing.assert_array_equal(again, prediction.predict(model, images))


@pytest.mark.parametrize("module", [maskformer, segformer])
def test_a_model_that_was_not_built_here_is_refused_when_it_is_opened(folders, tmp_path, module):
    """As transformers itself would save it: the same weights, without our fields."""
    chosen = settings(architecture=module.__name__.rpartition(".")[2])
    model = build(folders / ("mit" if module is segformer else "resnet"), chosen, module)
    del model.config.picture_scale
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="expected picture_scale .*got a plain .*Segmentation"):
        load_segmenter(tmp_path)


def test_parts_of_a_batch_add_up_to_its_loss(folders):
    """Pictures with 1, 2 and 3 masks, one without any counted pixel: shares are uneven."""
    model = build(folders / "resnet", settings()).eval()
    images, labels = drawn(4)
    labels[0][:] = 255
    labels[1][:] = 3
    labels[2][:8] = 9
    pixels = prediction.to_pixels(np.stack(images), torch.device("cpu"))
    truth = torch.from_numpy(np.stack(labels))
    whole = maskformer.loss(model, pixels, truth)
    totals = maskformer.sizes(model, truth)
    parts = [
        maskformer.loss(model, pixels[s], truth[s], totals)
        for s in (slice(0, 1), slice(1, 3), slice(3, 4))
    ]
    torch.testing.assert_close(sum(parts), whole)


@pytest.mark.parametrize(
    "spoil, message",
    [
        ("nothing there", "expected a folder or hub id of an image classifier .*HF_HUB_OFFLINE=1"),
        ("a segmenter", "is MaskFormerForInstanceSegmentation: expected .*saw masks"),
        ("another classifier", "is SegformerForImageClassification: expected .*ResNetFor"),
        ("no safetensors", "no model.safetensors, and pickled weights are not loaded"),
    ],
)
def test_backbones_that_are_refused(folders, tmp_path, spoil, message):
    folder = tmp_path / "backbone"
    if spoil == "a segmenter":
        build(folders / "resnet", settings()).save_pretrained(folder)
    if spoil == "another classifier":
        folder = folders / "mit"
    if spoil == "no safetensors":
        tiny_backbone(folder)
        (folder / "model.safetensors").unlink()
        torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"(?s)segmenter.backbone .*{message}"):
        build(folder, settings())


def test_an_unreachable_revision_is_named():
    message = "(?s)'nobody/nothing' at revision 'abc'.*backbone_revision"
    with pytest.raises(ValueError, match=message):
        load_backbone("nobody/nothing", "abc", ["ResNetForImageClassification"])


def test_a_folder_has_no_revision(tmp_path):
    with pytest.raises(ValueError, match="segmenter.backbone_revision: expected null.*'abc'"):
        load_backbone(tmp_path, "abc", ["ResNetForImageClassification"])


def test_a_hub_backbone_must_say_how_its_pixels_were_normalised():
    with pytest.raises(ValueError, match="here: no preprocessor_config.json"):
        backbones._normalisation("nobody/nothing", None, "here")


# --- pictures -----------------------------------------------------------------------------------


def test_encoded_pictures_are_decoded_when_asked_for(tmp_path):
    images, labels = drawn(5)
    frame = pd.DataFrame(
        {
            "image": [encode_png(x) for x in images],
            "label": [encode_png(x) for x in labels],
            "key": list("abcde"),
        }
    )
    store_encoded(tmp_path / "pictures.arrow", [frame[:2], frame[2:2], frame[2:]])
    pictures, maps = open_encoded(tmp_path / "pictures.arrow")
    assert len(pictures) == len(maps) == 5
    for place in np.arange(5):
        np.testing.assert_array_equal(pictures[place], images[place])
        np.testing.assert_array_equal(maps[place], labels[place])
    buffer = io.BytesIO()
    Image.fromarray(images[0]).save(buffer, "JPEG", quality=95)
    jpeg = Encoded([buffer.getvalue()])[0]
    assert np.abs(jpeg.astype(int) - images[0]).mean() < 4


def test_a_crop_takes_the_same_place_of_picture_and_labels():
    """Every pixel's colour tells its place, and its label with it."""
    y, x = np.mgrid[:90, :70].astype(np.uint8)
    image, label = np.stack([y, x, y], -1), (y + x) % 7
    chosen, corners = settings(crop_size=64), set()
    for seed in range(20):
        picture, truth = augmented(image, label, chosen, np.random.default_rng(seed), seed % 2)
        assert picture.shape == (64, 64, 3)
        np.testing.assert_array_equal(truth, (picture[..., 0] + picture[..., 1]) % 7)
        corners.add(tuple(picture[0, 0]))
    assert len(corners) > 10
    again = augmented(image, label, chosen, np.random.default_rng(3), True)[0]
    np.testing.assert_array_equal(
        again, augmented(image, label, chosen, np.random.default_rng(3), True)[0]
    )


def test_a_smaller_picture_is_padded_with_pixels_that_do_not_count():
    image, label = np.full((40, 100, 3), 9, np.uint8), np.full((40, 100), 4, np.uint8)
    picture, truth = augmented(image, label, settings(crop_size=64), np.random.default_rng(0))
    assert (truth[:40] == 4).all() and (truth[40:] == 255).all()
    assert (picture[:40] == 9).all() and (picture[40:] == (124, 116, 104)).all()


def test_scales_keep_labels_on_their_pixels():
    """Half dark, half bright: away from the edge colour and label must agree at any scale."""
    image, label = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
    image[:, 30:], label[:, 30:] = 255, 1
    chosen, widths = settings(crop_size=64, scale_range=[0.5, 2.0]), []
    for seed in range(12):
        picture, truth = augmented(image, label, chosen, np.random.default_rng(seed))
        bright, counted = picture[..., 0], truth != 255
        widths.append(counted[0].sum())
        assert set(np.unique(truth)) <= {0, 1, 255}
        assert (truth[counted & (bright == 0)] == 0).all()
        assert (truth[counted & (bright == 255)] == 1).all()
    assert min(widths) < 50 and max(widths) == 64


def test_colours_change_within_their_bounds_and_labels_do_not():
    image, label = np.full((8, 8, 3), 100, np.uint8), np.ones((8, 8), np.uint8)
    levels = [
        augmented(image, label, settings(colour_jitter=0.2), np.random.default_rng(s))[0]
        for s in range(30)
    ]
    assert 79 <= min(x.min() for x in levels) < 90 and 110 < max(x.max() for x in levels) <= 121


def test_pictures_of_many_sizes_train_in_crops(folders, tmp_path):
    small, large = drawn(3, (48, 80)), drawn(4, (96, 72))
    images, labels = Encoded([encode_png(x) for x in small[0] + large[0]]), small[1] + large[1]
    chosen = settings(
        steps=2, batch_size=3, crop_size=64, scale_range=[0.5, 2.0], colour_jitter=0.3
    )
    model = build(folders / "resnet", chosen)
    curve = loop.train(model, images, labels, chosen, tmp_path, seed=0)
    assert all(np.isfinite(row["loss"]) for row in curve)
    found = prediction.predict_each(model, [images[0], images[6]])
    assert [x.shape for x in found] == [(48, 80), (96, 72)]
    with pytest.raises(ValueError, match="sizes in one batch, e.g. .*set segmenter.crop_size"):
        loop.train(model, images, labels, settings(steps=2, batch_size=7), tmp_path / "b", seed=0)


def test_sets_that_cannot_be_trained_on_are_refused(folders, tmp_path):
    model, (images, labels) = build(folders / "resnet", settings()), drawn(4)

    def refused(match, images=images, labels=labels, **changes):
        with pytest.raises(ValueError, match=match):
            loop.train(model, images, labels, settings(steps=1, **changes), tmp_path, seed=0)

    refused(
        "crop_size is 512, larger than every picture .*at most 64 .*expected at most 64",
        crop_size=512,
    )
    refused("4 pictures and 3 label maps", labels=labels[:3])
    refused("float64", images=[image / 255 for image in images])
    refused(r"got uint8 \(64, 64, 3\) and uint8 \(32, 64\)", labels=[x[:32] for x in labels])
    wrong = [np.where(label == 255, 255, 77).astype(np.uint8) for label in labels]
    refused(r"expected labels 0..20 and 255, got 77", labels=wrong)


# --- the loop -----------------------------------------------------------------------------------

FULL = {
    "steps": 7,
    "batch_size": 3,
    "crop_size": 48,
    "scale_range": [0.5, 2.0],
    "colour_jitter": 0.3,
    "poly_power": 0.9,
    "precision": "bfloat16",
    "ema_decay": 0.8,
    "freeze_batch_norm": True,
}


def test_everything_switched_on_resumes_to_the_same_weights(folders, tmp_path, monkeypatch):
    """Swin leaves out layers at random: those draws must come again as well."""
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY", 3)
    chosen = settings(**FULL)
    whole, again = (build(folders / "swin", chosen) for _ in range(2))
    expected = loop.train(whole, *drawn(8), chosen, tmp_path / "a", seed=3)
    original, calls = maskformer.loss, []

    def killed(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(maskformer, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        loop.train(build(folders / "swin", chosen), *drawn(8), chosen, tmp_path / "b", seed=3)
    torch.rand(5)  # what others draw in between must not matter
    assert loop.train(again, *drawn(8), chosen, tmp_path / "b", seed=3) == expected
    assert len(calls) == 9
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    rates = [row["learning_rate"] for row in expected]
    assert rates == pytest.approx([0.001 * (1 - step / 7) ** 0.9 for step in range(7)])


def test_averaged_weights_by_hand(folders):
    chosen = settings(ema_decay=0.75)
    learner = loop._learner(build(folders / "resnet", chosen), chosen)
    images, labels = (np.stack(part) for part in drawn(2))
    name = "class_predictor.weight"
    expected = None
    for step in range(3):
        learner.step(images, labels, seed=step)
        now = learner.model.state_dict()[name].clone()
        expected = now if expected is None else 0.75 * expected + 0.25 * now
    torch.testing.assert_close(learner.best().state_dict()[name], expected)


def test_frozen_batch_norm_of_the_backbone_stays(folders, tmp_path):
    chosen = settings(steps=2, batch_size=2, freeze_batch_norm=True)
    model = build(folders / "resnet", chosen)
    before = {k: v.clone() for k, v in maskformer.backbone_of(model).state_dict().items()}
    loop.train(model, *drawn(2), chosen, tmp_path, seed=0)
    changed = {
        name
        for name, value in maskformer.backbone_of(model).state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed and all("convolution" in name for name in changed)


def test_a_batch_that_does_not_fit_is_trained_on_in_parts(folders, tmp_path, monkeypatch):
    chosen = settings(steps=3, batch_size=5, freeze_batch_norm=True)
    whole, parts = (build(folders / "resnet", chosen) for _ in range(2))
    expected = loop.train(whole, *drawn(6), chosen, tmp_path / "a", seed=0)
    original, sizes = maskformer.loss, []

    def greedy(model, pixels, *rest):
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(model, pixels, *rest)

    monkeypatch.setattr(maskformer, "loss", greedy)
    found = loop.train(parts, *drawn(6), chosen, tmp_path / "b", seed=0)
    assert sizes == [5, 2, 2, 1, 2, 2, 1, 2, 2, 1]
    assert [r["loss"] for r in found] == pytest.approx([r["loss"] for r in expected], rel=1e-3)


def test_prediction_that_does_not_fit_is_halved(folders, monkeypatch):
    model, images = build(folders / "resnet", settings()), np.stack(drawn(5)[0])
    expected, original = prediction.predict(model, images), maskformer.label_scores

    def greedy(model, pixels):
        if len(pixels) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(model, pixels)

    monkeypatch.setattr(maskformer, "label_scores", greedy)
    np.testing.assert_array_equal(prediction.predict(model, images), expected)
    assert prediction.predict(model, images[:0]).shape == (0, 64, 64)


def test_float16_needs_a_gpu(folders, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    chosen = settings(steps=1, precision="float16")
    with pytest.raises(ValueError, match="float16 needs a CUDA GPU.*bfloat16 or float32"):
        loop.train(build(folders / "resnet", chosen), *drawn(2), chosen, tmp_path, seed=0)


@pytest.mark.parametrize(
    "section, changes, message",
    [
        ("segmenter", {"precision": "fp16"}, "float32, float16 or bfloat16, got 'fp16'"),
        ("segmenter", {"heads": 5}, "a divisor of segmenter.width 64, got 5"),
        ("segmenter", {"crop_size": 16}, "from 32 to 4,096 or null, got 16"),
        ("segmenter", {"scale_range": [0.5, 2]}, "scale_range: expected .*crop_size is null"),
        (
            "segmenter",
            {"ema_decay": 1.0},
            "ema_decay: expected a number from 0 and below 1, got 1.0",
        ),
        ("segmenter", {"colour_jitter": 2}, "colour_jitter: expected a number from 0 to 1, got 2"),
        ("executor", {"workers": -1}, "workers: expected a whole number from 0 to 1,024, got -1"),
        ("diffusion", {"device": "cuda:1"}, "diffusion.device: expected auto, cuda or cpu"),
    ],
)
def test_settings_that_are_refused_at_once(tmp_path, section, changes, message):
    profile = {section: changes} | ({"executor": {"workers": 2}} if section == "diffusion" else {})
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(profile))
    with pytest.raises(ValueError, match=message):
        load_params(str(tmp_path / "mine.yaml"))


# --- full size ----------------------------------------------------------------------------------

PAPER = {
    "width": 256,
    "queries": 100,
    "decoder_layers": 6,
    "heads": 8,
    "feedforward": 2048,
    "crop_size": 512,
    "scale": 1,
    "batch_size": 1,
}


@pytest.mark.slow
@pytest.mark.parametrize("name, millions", [("resnet-101", 60), ("swin-base", 102)])
def test_full_size_has_the_papers_parameters_and_trains(tmp_path, name, millions):
    """MaskFormer's paper (arXiv 2107.06278) counts 60 M with ResNet-101, 102 M with Swin-B."""
    if name == "resnet-101":
        ResNetForImageClassification(ResNetConfig(depths=[3, 4, 23, 3])).save_pretrained(tmp_path)
    else:
        SwinForImageClassification(
            SwinConfig(
                image_size=384,
                embed_dim=128,
                depths=[2, 2, 18, 2],
                num_heads=[4, 8, 16, 32],
                window_size=12,
            )
        ).save_pretrained(tmp_path)
    chosen = dataclasses.replace(settings(), **PAPER)
    model = build(tmp_path, chosen)
    count = sum(weight.numel() for weight in model.parameters())
    assert count / 1e6 == pytest.approx(millions, rel=0.02)
    image, label = (np.stack(part) for part in drawn(1, (512, 512)))
    learner = loop._learner(model, chosen)
    assert np.isfinite(learner.step(image, label, seed=0))
    idle = [n for n, w in model.named_parameters() if w.grad is None]
    assert len(idle) <= 4, idle
    with torch.no_grad():
        classes, masks = maskformer._logits(
            model, prediction.to_pixels(image, torch.device("cpu")), every_layer=True
        )
    assert classes.shape == (6, 1, 100, 22) and masks.shape == (6, 1, 100, 128, 128)
