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
from torch import nn
from torch.nn import functional
from transformers import ResNetConfig, ResNetForImageClassification

from ml.arguments import number
from ml.compute.weights import load_whole
from ml.drawn_world.world import CLASSES
from ml.errors import EXIT_CODES, exit_path
from ml.foundation.batches import classification_figures, multi_hot, soften, to_pixels
from ml.foundation.scenes import SceneSet, load_scenes
from ml.foundation.training import Budget, Run, add_arguments, choose_device
from ml.store.files import atomic

SCALE = 2
"""Scenes are doubled to 128x128, so that the deepest stage (stride 32) still has 4x4 places."""

TRAIN_SCENES, EVAL_SCENES = 20_000, 500
BATCH, PEAK_LR, WARMUP, EMA_DECAY = 32, 2e-3, 50, 0.99
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
    return load_whole(ResNetForImageClassification, str(folder), folder).eval()


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


def label_loss(
    logits_of: nn.Module, scenes: SceneSet, rows: torch.Tensor, run: Run, device: torch.device
) -> torch.Tensor:
    """Binary cross-entropy of the 20 classes on softened scenes `rows` (int64 (B,)).

    logits_of: softened pixels float32 (B,3,64,64) -> (B,20). A scalar.
    """
    index = rows.numpy()
    pixels = soften(to_pixels(scenes.images[index]), run.generator).to(device)
    targets = multi_hot(scenes.classes[index]).to(device)
    return functional.binary_cross_entropy_with_logits(logits_of(pixels), targets)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=EXIT_CODES)
    add_arguments(parser, work=".scratch/train/backbone")
    parser.add_argument("--out", type=Path, default=Path("data/foundation/micro/backbone"))
    parser.add_argument("--train-scenes", type=number(int, 1), default=TRAIN_SCENES)
    chosen = parser.parse_args(argv)
    device = choose_device(chosen.device)
    scenes = load_scenes("backbone", chosen.train_scenes, chosen.scenes)
    fresh = load_scenes("eval", EVAL_SCENES, chosen.scenes)
    torch.manual_seed(chosen.seed)
    model = make_backbone().to(device, memory_format=torch.channels_last)
    settings = {
        "train_scenes": chosen.train_scenes,
        "batch": BATCH,
        "peak_lr": PEAK_LR,
        "labels": "classes in the picture, no masks",
        "parameters": model.num_parameters(),
    }
    run = Run(
        {"backbone": model},
        torch.optim.AdamW(model.parameters(), PEAK_LR, weight_decay=0.02),
        chosen.work,
        Budget(chosen.minutes, chosen.steps),
        settings,
        seed=chosen.seed,
        peak_lr=PEAK_LR,
        warmup=WARMUP,
        ema_decay=EMA_DECAY,
    )

    def report() -> None:
        with run.averaged():
            seen = class_probabilities(model, to_pixels(fresh.images).to(device)).cpu()
            with atomic(chosen.out) as folder:
                model.save_pretrained(folder)
        print("fresh scenes:", classification_figures(seen, multi_hot(fresh.classes)), flush=True)

    for _ in run.steps(every_seconds=REPORT_SECONDS, report=report):
        rows = torch.randint(len(scenes), (BATCH,), generator=run.generator)
        loss = label_loss(lambda x: model(prepare(x)).logits, scenes, rows, run, device)
        run.update(loss, BATCH)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
