"""Train the micro detector, torchvision's Mask R-CNN over the 20 classes of the drawn world:

    python -m ml.foundation.train_detector --minutes 20 \
        --out data/foundation/micro/detector --work .scratch/train/detector

The same command goes on after a stop. Its ResNet starts from the classification backbone of
`train_backbone.py`, as Mask R-CNN starts from ImageNet. Not here: the network itself
(`ml/detectors/maskrcnn.py`), the figures of the card (`measure.py`).
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ml.detectors import load_detector
from ml.detectors.maskrcnn import build_maskrcnn, save_maskrcnn
from ml.detectors.maskrcnn_config import MaskRCNNConfig
from ml.drawn_world.world import CLASSES
from ml.errors import exit_path
from ml.foundation.average_precision import mask_average_precision
from ml.foundation.batches import soften, to_pixels
from ml.foundation.scenes import NO_CLASS, SceneSet, fresh_scenes, load_scenes
from ml.foundation.schedule import Schedule
from ml.foundation.train_backbone import load_backbone
from ml.foundation.training import Training, run_training, trainer_parser
from ml.images.boxes import mask_box
from ml.store.files import atomic

TRAIN_SCENES, EVAL_SCENES = 20_000, 200
BATCH = 16
SCHEDULE = Schedule(1.5e-3, warmup=100, ema_decay=0.99, weight_decay=0.01)
REPORT_SECONDS = 240.0


def targets(scenes: SceneSet, row: int) -> dict[str, torch.Tensor]:
    """One scene as torchvision's detectors take it, with n objects.

    boxes: float32 (n,4) x1,y1,x2,y2 in pixels, far edges exclusive. labels: int64 (n,), 1..20.
    masks: uint8 (n,64,64), 0 or 1.
    """
    classes = scenes.classes[row]
    classes = classes[classes != NO_CLASS]
    masks = scenes.instances[row] == np.arange(1, len(classes) + 1, dtype=np.uint8)[:, None, None]
    return {
        "boxes": torch.from_numpy(np.array([mask_box(mask) for mask in masks], np.float32)),
        "labels": torch.from_numpy(classes.astype(np.int64) + 1),
        "masks": torch.from_numpy(masks.astype(np.uint8)),
    }


def total_loss(
    model: nn.Module, scenes: SceneSet, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Sum of Mask R-CNN's five losses on BATCH softened scenes. A scalar."""
    torch.manual_seed(generator.initial_seed())  # torchvision samples boxes with the global one
    rows = torch.randint(len(scenes), (BATCH,), generator=generator)
    pixels = soften(to_pixels(scenes.images[rows.numpy()]), generator).to(device)
    wanted = [
        {name: value.to(device) for name, value in targets(scenes, row).items()}
        for row in rows.tolist()
    ]
    losses: dict[str, torch.Tensor] = model(list(pixels), wanted)
    return sum(losses.values(), torch.zeros((), device=device))


def prepare(chosen: argparse.Namespace, device: torch.device) -> Training:
    """Mask R-CNN on drawn scenes and their masks, from the backbone's weights."""
    scenes = load_scenes("train", chosen.train_scenes, chosen.scenes)
    fresh = fresh_scenes(EVAL_SCENES)
    torch.manual_seed(chosen.seed)
    config = MaskRCNNConfig(classes=CLASSES)
    model = build_maskrcnn(config).to(device, memory_format=torch.channels_last)
    classifier = load_backbone(chosen.backbone).resnet.state_dict()
    model.backbone.body.load_state_dict(classifier)

    def save() -> str:
        with atomic(chosen.out) as folder:
            save_maskrcnn(model, config, folder)
        detector = load_detector(
            "torchvision", chosen.out, score_threshold=0.05, device=str(device)
        )
        found = detector.detect([scene.image for scene in fresh])
        return f"{EVAL_SCENES} fresh scenes: {mask_average_precision(fresh, found)}"

    settings = {
        "train_scenes": chosen.train_scenes,
        "batch": BATCH,
        "peak_lr": SCHEDULE.peak_lr,
        "starts_from": "the classification backbone",
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return Training(
        {"detector": model},
        settings,
        SCHEDULE,
        BATCH,
        lambda generator: total_loss(model, scenes, generator, device),
        save,
        REPORT_SECONDS,
    )


def main(argv: list[str] | None = None) -> None:
    parser = trainer_parser(
        __doc__,
        work=".scratch/train/detector",
        out="data/foundation/micro/detector",
        train_scenes=TRAIN_SCENES,
    )
    parser.add_argument("--backbone", type=Path, default=Path("data/foundation/micro/backbone"))
    run_training(prepare, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(exit_path(main)())
