"""Judge, backbone, the detector's targets, the figures of the card; the committed models."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import save_file

from ml.detectors.base import Instances
from ml.diffusion.features import channels_of
from ml.diffusion.loading import load_pipeline
from ml.diffusion.sampling import sample
from ml.drawn_world.world import CLASSES, draw_scene, scene_seed
from ml.foundation import judge as judge_module
from ml.foundation import measure, train_backbone, train_detector
from ml.foundation.average_precision import mask_average_precision
from ml.foundation.batches import classification_figures, multi_hot, soften, to_pixels
from ml.foundation.card import card_text, holds, update_card, weigh
from ml.foundation.judge import Judge, load_judge, save_judge
from ml.foundation.scenes import SceneSet
from ml.foundation.train_backbone import class_probabilities, load_backbone, make_backbone
from ml.foundation.train_detector import targets
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.store.folder_digest import sha256_folder

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
        assert holds(folder, tmp_path / "work" / name)
        with pytest.raises(ValueError, match="'seed': 0.*'seed': 1.*another --work"):
            main([*more, *scenes, "--steps", "3", "--seed", "1", "--out", str(folder),
                  "--work", str(tmp_path / "work" / name)])  # fmt: skip
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


@pytest.fixture
def micro(tmp_path):
    """A folder with a judge, a detector, and an autoencoder and U-Net in name; all of them random
    weights."""
    for number, name in enumerate(("judge", "detector", "diffusion/vae", "diffusion/unet")):
        put(tmp_path / "micro" / name, number)
    return tmp_path / "micro"


def put(folder, number: int) -> torch.Tensor:
    """A model of one weight in float16; returns it as it was in float32."""
    weight = torch.randn(40, 40, generator=torch.Generator().manual_seed(number))
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"weight": weight.half()}, folder / "model.safetensors")
    return weight


def leave_training(work, weight: torch.Tensor) -> None:
    """What a trainer leaves that has trained one weight."""
    work.mkdir(parents=True)
    (work / "settings.json").write_text('{"batch": 32}')
    curve = "step,samples,seconds,loss,lr\n10,320,5.5,0.7,1e-3\n20,640,11.0,0.6,1e-5\n"
    (work / "curve.csv").write_text(curve)
    save_file({"ema.0": weight, "ema.1": torch.zeros(2)}, work / "checkpoint.safetensors")


def card_of(folder) -> dict:
    return json.loads((folder / "card.json").read_text())


def test_card_keeps_other_parts_and_names_what_missed(tmp_path, micro):
    update_card(micro, tmp_path, "autoencoder", {"psnr_db": 29.5})
    update_card(micro, tmp_path, "detector", {"mask_ap50": 91.0})
    update_card(micro, tmp_path, "pictures", {"one_object_seen": 98.0})
    card = card_of(micro)
    assert set(card["measured"]) == {"autoencoder", "detector", "pictures"}
    text = (micro / "MODEL_CARD.md").read_text()
    assert text == card_text(card)
    assert "29.50 dB | 30 dB, missed" in text and "91.00 % | 85 % |" in text
    assert text.index("`diffusion/vae`") < text.index("`diffusion/unet`") < text.index("`detector`")
    assert "`judge`" not in text  # it was not measured


def test_card_vouches_for_the_measured_model_alone(tmp_path, micro):
    """The detector was exported anew: measuring the judge leaves it refused, measuring it does not.
    A new U-Net's figures are not those of the old one, though the autoencoder was measured."""
    for part in ("judge", "detector", "autoencoder", "pictures"):
        update_card(micro, tmp_path, part, {"measured": 1})
    before = card_of(micro)
    put(micro / "detector", 10)
    put(micro / "judge", 11)
    update_card(micro, tmp_path, "judge", {"measured": 2})
    after = card_of(micro)
    assert after["sha256"] == before["sha256"] | {"judge": sha256_folder(micro / "judge")}
    assert after["sha256"]["judge"] != before["sha256"]["judge"]
    params = load_params("ci")
    params = dataclasses.replace(
        params, detector=dataclasses.replace(params.detector, model=str(micro / "detector"))
    )
    with pytest.raises(ValueError, match="is not the model of .*card.json"):
        Workspace(tmp_path, "ci").digest(params, "detector.model")
    update_card(micro, tmp_path, "detector", {"measured": 2})
    Workspace(tmp_path, "ci").digest(params, "detector.model")

    put(micro / "diffusion/unet", 12)
    update_card(micro, tmp_path, "autoencoder", {"measured": 2})
    assert set(card_of(micro)["measured"]) == {"judge", "detector", "autoencoder"}


def test_card_tells_of_a_training_only_what_it_left_in_the_model(tmp_path, micro):
    """One that exported elsewhere is on the card once its export lies in the folder."""
    weight = put(tmp_path / "exported", 20)
    leave_training(tmp_path / "train" / "detector", weight)
    update_card(micro, tmp_path / "train", "detector", {})
    assert "trained" not in card_of(micro)
    put(micro / "detector", 20)
    update_card(micro, tmp_path / "train", "judge", {})
    assert "trained" not in card_of(micro)
    update_card(micro, tmp_path / "train", "detector", {})
    assert card_of(micro)["trained"] == {
        "detector": {
            "batch": 32,
            "at the end: step": "20",
            "at the end: samples": "640",
            "at the end: seconds": "11.0",
            "at the end: loss": "0.6",
        }
    }
    assert "| batch | 32 |" in (micro / "MODEL_CARD.md").read_text()


def test_a_quick_look_writes_no_card(tmp_path, micro, monkeypatch, capsys):
    monkeypatch.setitem(measure.PARTS, "judge", (lambda folder, count: {"scenes": count}, 500))
    options = ["--what", "judge", "--folder", str(micro), "--training", str(tmp_path)]
    measure.main([*options, "--count", "3"])
    assert "scenes: 3" in capsys.readouterr().out and not (micro / "card.json").exists()
    measure.main(options)
    assert card_of(micro)["measured"] == {"judge": {"scenes": 500}}


def test_a_killed_write_leaves_the_old_card(tmp_path, micro, monkeypatch):
    update_card(micro, tmp_path, "judge", {"exact_set": 90.0})
    before = (micro / "MODEL_CARD.md").read_text()
    write = Path.write_text

    def half(path, text, **options):
        if "MODEL_CARD" in path.name:
            write(path, text[:100], **options)
            raise OSError("no space")
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="no space"):
        update_card(micro, tmp_path, "judge", {"exact_set": 91.0})
    assert (micro / "MODEL_CARD.md").read_text() == before


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
