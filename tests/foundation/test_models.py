"""Judge, backbone, the detector's targets, the figures of the card; the committed models."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from ml.detectors.base import Instances
from ml.diffusion.features import channels_of
from ml.diffusion.loading import load_pipeline
from ml.diffusion.sampling import sample
from ml.drawn_world.world import CLASSES, draw_scene, scene_seed
from ml.foundation import judge as judge_module
from ml.foundation import train_backbone, train_detector
from ml.foundation.average_precision import mask_average_precision
from ml.foundation.batches import classification_figures, multi_hot, soften, to_pixels
from ml.foundation.card import card_text, update_card, weigh
from ml.foundation.judge import Judge, load_judge, save_judge
from ml.foundation.scenes import SceneSet
from ml.foundation.train_backbone import class_probabilities, load_backbone, make_backbone
from ml.foundation.train_detector import targets
from ml.settings.profile import ROOT, load_params

MICRO = ROOT / "data/foundation/micro"


def test_multi_hot():
    hot = multi_hot(np.array([[3, 255, 255], [0, 19, 255], [5, 6, 7]], np.uint8))
    assert [row.nonzero().flatten().tolist() for row in hot] == [[3], [0, 19], [5, 6, 7]]


def test_soften_stays_a_picture_and_follows_its_generator():
    pixels = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    first, second = (soften(pixels, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == pixels.shape and first.min() >= 0 and first.max() <= 1
    assert 0.01 < (first - pixels).abs().mean() < 0.2


def test_exact_set_counts_whole_pictures():
    """Two of four pictures have exactly their classes: one misses a class, one has one too many."""
    targets_ = torch.tensor([[1.0, 0], [0, 1], [1, 1], [1, 0]])
    seen = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.9, 0.4], [0.6, 0.7]])
    figures = classification_figures(seen, targets_)
    assert figures["exact_set"] == pytest.approx(50)
    # Class 0: the three pictures that have it come first, precision 1. Class 1, ranked: yes (0.8),
    # no (0.7), yes (0.4): (1 + 2/3) / 2.
    assert figures["mean_average_precision"] == pytest.approx(100 * (1 + 5 / 6) / 2)


def test_detector_targets():
    """A 2x3 object and a single pixel; boxes have exclusive far edges, labels start at 1."""
    instances = np.zeros((1, 64, 64), np.uint8)
    instances[0, 10:12, 20:23] = 1
    instances[0, 40, 50] = 2
    scenes = SceneSet(
        images=np.zeros((1, 64, 64, 3), np.uint8),
        instances=instances,
        classes=np.array([[4, 0, 255]], np.uint8),
        captions=["a bottle and an aeroplane"],
    )
    wanted = targets(scenes, 0)
    assert wanted["boxes"].tolist() == [[20, 10, 23, 12], [50, 40, 51, 41]]
    assert wanted["labels"].tolist() == [5, 1]
    assert wanted["masks"].sum((1, 2)).tolist() == [6, 1]


def found_in(scene, *, label=None, keep=1.0) -> Instances:
    """What a detector that is right would say; `label` renames, `keep` cuts masks from below."""
    masks = scene.masks.copy()
    for mask in masks:
        rows = np.flatnonzero(mask.any(1))
        mask[rows[int(np.ceil(keep * len(rows)))] if keep < 1 else 64 :] = False
    n = len(masks)
    return Instances(
        masks=masks,
        scores=np.linspace(0.9, 0.8, n, dtype=np.float32),
        labels=(label,) * n if label else scene.classes,
        boxes=np.zeros((n, 4), np.float32),
    )


def test_mask_average_precision():
    """Right masks score 100, wrong names and no masks 0, masks cut to a quarter 0 at IoU 0.5."""
    scenes = [draw_scene(scene_seed("test", i), n_objects=2) for i in range(6)]
    whole = mask_average_precision(scenes, [found_in(scene) for scene in scenes])
    assert whole["mask_ap50"] == pytest.approx(100) and whole["mask_ap"] == pytest.approx(100)
    other = next(name for name in CLASSES if all(name not in scene.classes for scene in scenes))
    wrong = mask_average_precision(scenes, [found_in(scene, label=other) for scene in scenes])
    assert wrong["mask_ap50"] == 0
    cut = mask_average_precision(scenes, [found_in(scene, keep=0.25) for scene in scenes])
    assert cut["mask_ap50"] < 10
    nothing = Instances(
        np.zeros((0, 64, 64), bool), np.zeros(0, np.float32), (), np.zeros((0, 4), np.float32)
    )
    assert mask_average_precision(scenes, [nothing] * 6)["mask_ap50"] == 0


def test_judge_round_trip(tmp_path):
    torch.manual_seed(0)
    model = Judge(widths=(8, 8)).half().float().eval()  # what float16 in the file can hold
    save_judge(model, tmp_path / "judge")
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    seen = load_judge(tmp_path / "judge").judge(images)
    assert seen.shape == (3, 20) and seen.dtype == np.float32
    np.testing.assert_allclose(seen, model.judge(list(images)), atol=1e-6)


def test_judge_refuses_other_pictures():
    with pytest.raises(ValueError, match=r"expected uint8 \(N,64,64,3\), got float64"):
        Judge(widths=(8,)).judge(np.zeros((1, 64, 64, 3)))


def test_missing_checkpoints_say_how_to_train_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="ml.foundation.judge train"):
        load_judge(tmp_path)
    with pytest.raises(FileNotFoundError, match="ml.foundation.train_backbone"):
        load_backbone(tmp_path)


def test_trainers_run_and_go_on(tmp_path, monkeypatch):
    """Two steps of each trainer, the second after a restart; the detector starts from the backbone
    of this test. What they leave can be loaded."""
    for module in (train_backbone, train_detector, judge_module):
        monkeypatch.setattr(module, "EVAL_SCENES", 4)
        monkeypatch.setattr(module, "BATCH", 2)
    scenes = ["--scenes", str(tmp_path / "scenes"), "--train-scenes", "8", "--device", "cpu"]

    def twice(main, name, *more):
        folder = tmp_path / name
        for steps in (1, 2):
            main([*more, *scenes, "--steps", str(steps), "--out", str(folder),
                  "--work", str(tmp_path / "work" / name)])  # fmt: skip
        log = (tmp_path / "work" / name / "log.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in log] == [1, 2]
        return folder

    backbone = twice(train_backbone.main, "backbone")
    load_backbone(backbone)
    load_judge(twice(judge_module.main, "judge", "train"))
    detector = twice(train_detector.main, "detector", "--backbone", str(backbone))
    assert (detector / "model.safetensors").stat().st_size < 4e6


def test_weigh_counts_parameters(tmp_path):
    model = make_backbone()
    model.save_pretrained(tmp_path)
    assert weigh(tmp_path)["parameters"] == model.num_parameters()


def test_card_keeps_other_parts_and_names_what_missed(tmp_path):
    settings = tmp_path / "train" / "judge" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"batch": 32}')
    curve = "step,samples,seconds,loss,lr\n10,320,5.5,0.7,1e-3\n20,640,11.0,0.6,1e-5\n"
    settings.with_name("curve.csv").write_text(curve)
    folder = tmp_path / "micro"
    save_judge(Judge(widths=(8,)), folder / "judge")
    update_card(folder, tmp_path / "train", "autoencoder", {"psnr_db": 29.5})
    update_card(folder, tmp_path / "elsewhere", "detector", {"mask_ap50": 91.0})
    card = json.loads((folder / "card.json").read_text())
    assert set(card["measured"]) == {"autoencoder", "detector"}
    text = (folder / "MODEL_CARD.md").read_text()
    assert text == card_text(card)
    assert "29.50 dB | 30 dB, missed" in text and "91.00 % | 85 % |" in text
    assert "| batch | 32 |" in text and "samples | 640 |" in text and "`judge`" in text


def fresh(start: int, count: int):
    return [draw_scene(scene_seed("test", start + index)) for index in range(count)]


def exact(scenes, probabilities: np.ndarray) -> float:
    """Share of scenes whose classes at 0.5 are exactly those drawn."""
    wanted = np.array([[name in scene.classes for name in CLASSES] for scene in scenes])
    return float(((probabilities > 0.5) == wanted).all(1).mean())


def test_committed_judge_names_drawn_classes():
    scenes = fresh(1000, 60)
    seen = load_judge(MICRO / "judge").judge([scene.image for scene in scenes])
    assert exact(scenes, seen) > 0.9


def test_committed_backbone_names_drawn_classes():
    scenes = fresh(2000, 60)
    pixels = to_pixels(np.stack([scene.image for scene in scenes]))
    seen = class_probabilities(load_backbone(MICRO / "backbone"), pixels)
    assert exact(scenes, seen.numpy()) > 0.7


def test_committed_transformer_draws_the_word_and_gives_one_grid_of_features():
    """As the profile micro-dit says: a Stable Diffusion 3 without T5, 16x16 places, both guidance
    halves of four blocks. The judge sees the class in 97 % of its pictures."""
    diffusion = load_params("micro-dit").diffusion
    pipe = load_pipeline(diffusion)
    assert isinstance(pipe, StableDiffusion3Pipeline) and pipe.text_encoder_3 is None
    assert channels_of(pipe) == {16: 2 * 4 * 128}
    names = ("bus", "cow", "person", "train")
    drawn = sample(
        pipe,
        [f"a photograph of a {name}" for name in names],
        range(len(names)),
        steps=diffusion.steps,
        guidance_scale=diffusion.guidance_scale,
    )
    seen = load_judge(MICRO / "judge").judge(drawn.images) > 0.5
    assert sum(seen[row, CLASSES.index(name)] for row, name in enumerate(names)) >= 3


def test_committed_checkpoints_are_small_safetensors():
    """25 MB in all, links not counted, and nothing that has to be unpickled."""
    files = [path for path in MICRO.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) < 25e6
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}]
