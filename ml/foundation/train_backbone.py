"""Train the segmenter's backbone, a ResNet that names the classes in a drawn scene:

    python -m ml.foundation.train_backbone --minutes 5 \
        --out data/foundation/micro/backbone --work .scratch/train/backbone

The same command goes on after a stop. Image labels only, the counterpart of an ImageNet backbone:
it never sees a mask. Not here: the segmenter (`ml/segmenters/`), the judge (`judge.py`).
"""

import argparse
import sys
from pathlib import Path

import torch
from torch.nn import functional
from transformers import ResNetConfig, ResNetForImageClassification

from ml.compute.weights import load_whole
from ml.drawn_world.world import CLASSES
from ml.errors import exit_path
from ml.foundation.batches import classification_figures, label_loss, multi_hot, to_pixels
from ml.foundation.scenes import load_scenes
from ml.foundation.schedule import Schedule
from ml.foundation.training import Training, run_training, trainer_parser
from ml.store.files import atomic

SCALE = 2
"""Scenes are doubled to 128x128, so that the deepest stage (stride 32) still has 4x4 places."""
TRAIN_SCENES, EVAL_SCENES = 20_000, 500
BATCH = 32
SCHEDULE = Schedule(2e-3, warmup=50, ema_decay=0.99, weight_decay=0.02)
REPORT_SECONDS = 120.0


def make_backbone() -> ResNetForImageClassification:
    """A quarter of a ResNet-18: 1.05 M parameters, random weights."""
    config = ResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 96, 128],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        id2label=dict(enumerate(CLASSES)),
        label2id={name: i for i, name in enumerate(CLASSES)},
        problem_type="multi_label_classification",
    )
    return ResNetForImageClassification(config)


def load_backbone(folder: Path) -> ResNetForImageClassification:
    """The classifier of a checkpoint folder, in eval mode."""
    if not (Path(folder) / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder}: expected config.json and model.safetensors of a ResNet classifier; "
            "train it with: python -m ml.foundation.train_backbone"
        )
    kind = ResNetForImageClassification
    return load_whole(kind, str(folder), folder, dtype=torch.float32).eval()


def save_backbone(model: ResNetForImageClassification, folder: Path) -> None:
    """As transformers saves it, the weights in float16 (half the bytes)."""
    half = ResNetForImageClassification(model.config)
    half.load_state_dict(model.state_dict())
    with atomic(folder) as temporary:
        half.half().save_pretrained(temporary)


def prepare(pixels: torch.Tensor) -> torch.Tensor:
    """float32 (N,3,64,64) in 0..1 -> what the backbone takes, (N,3,128,128) in 0..1.

    No mean is taken off: the first BatchNorm does that.
    """
    doubled = functional.interpolate(pixels, scale_factor=SCALE, mode="bilinear")
    return doubled.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def class_probabilities(model: ResNetForImageClassification, pixels: torch.Tensor) -> torch.Tensor:
    """pixels: float32 (N,3,64,64) in 0..1 -> float32 (N,20) in 0..1, each class on its own."""
    return torch.cat([model(prepare(batch)).logits.sigmoid() for batch in pixels.split(64)])


def prepare_training(chosen: argparse.Namespace, device: torch.device) -> Training:
    """The backbone on softened scenes and their class names."""
    scenes = load_scenes("backbone", chosen.train_scenes, chosen.scenes)
    fresh = load_scenes("eval", EVAL_SCENES, chosen.scenes)
    torch.manual_seed(chosen.seed)
    model = make_backbone().to(device, memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> torch.Tensor:
        return label_loss(lambda x: model(prepare(x)).logits, scenes, BATCH, generator, device)

    def save() -> str:
        seen = class_probabilities(model, to_pixels(fresh.images).to(device)).cpu()
        save_backbone(model, chosen.out)
        return f"fresh scenes: {classification_figures(seen, multi_hot(fresh.classes))}"

    settings = {
        "train_scenes": chosen.train_scenes,
        "batch": BATCH,
        "peak_lr": SCHEDULE.peak_lr,
        "labels": "classes in the picture, no masks",
        "parameters": model.num_parameters(),
    }
    return Training({"backbone": model}, settings, SCHEDULE, BATCH, loss, save, REPORT_SECONDS)


def main(argv: list[str] | None = None) -> None:
    parser = trainer_parser(
        __doc__,
        work=".scratch/train/backbone",
        out="data/foundation/micro/backbone",
        train_scenes=TRAIN_SCENES,
    )
    run_training(prepare_training, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(exit_path(main)())
