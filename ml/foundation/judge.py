"""Train and load the judge, a small CNN that names the classes in a picture:

    python -m ml.foundation.judge train --minutes 5 \
        --out data/foundation/micro/judge --work .scratch/train/judge
    python -m ml.foundation.judge name picture.png ...

The same command goes on after a stop. It measures generated pictures (`measure.py`) and is used
for nothing else: it labels nothing, filters nothing. So it shares no weight, no architecture and
no scene with the backbone and the detector.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from ml.compute.weights import fill
from ml.drawn_world.placement import SIZE
from ml.drawn_world.world import CLASSES
from ml.errors import EXIT_CODES, exit_path, one_line
from ml.foundation.batches import classification_figures, label_loss, multi_hot, to_pixels
from ml.foundation.scenes import load_scenes
from ml.foundation.schedule import Schedule
from ml.foundation.training import Training, add_arguments, run_training
from ml.images.photographs import open_picture
from ml.store.files import Damaged, atomic, read_json, write_json

WIDTHS = (24, 48, 80, 112)
TRAIN_SCENES, EVAL_SCENES = 20_000, 500
BATCH = 32
SCHEDULE = Schedule(3e-3, warmup=50, ema_decay=0.99, weight_decay=0.02)
REPORT_SECONDS = 120.0
FOLDER = Path("data/foundation/micro/judge")


class Judge(nn.Module):
    """Four stages of two plain 3x3 convolutions, a max pool after each of the first three; a class
    is present where it is at its strongest, so the head takes the maximum over places."""

    def __init__(self, widths: Sequence[int] = WIDTHS):
        super().__init__()
        self.widths = tuple(widths)
        layers: list[nn.Module] = []
        channels = 3
        for stage, width in enumerate(self.widths):
            layers += [nn.MaxPool2d(2)] if stage else []
            for _ in range(2):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.SiLU(),
                ]
                channels = width
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(2 * channels, len(CLASSES))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """float32 (N,3,64,64) in 0..1 -> logits (N,20)."""
        maps = self.stages(pixels.contiguous(memory_format=torch.channels_last))
        return self.head(torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], dim=1))

    @torch.inference_mode()
    def judge(self, images: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Class probabilities, float32 (N,20) in 0..1, each on its own.

        images: uint8 (N,64,64,3) RGB, or N of (64,64,3).
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape[1:] != (SIZE, SIZE, 3):
            raise ValueError(
                f"images: expected uint8 (N,{SIZE},{SIZE},3), got {images.dtype} {images.shape}"
            )
        device = self.head.weight.device
        batches = to_pixels(images).split(64)
        return torch.cat([self(batch.to(device)).sigmoid().cpu() for batch in batches]).numpy()


def load_judge(folder: Path = FOLDER) -> Judge:
    """The judge of a checkpoint folder, in eval mode. Raises ValueError naming a damaged file."""
    if not (Path(folder) / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder}: expected config.json and model.safetensors of the judge; "
            "train it with: python -m ml.foundation.judge train"
        )
    weights = Path(folder) / "model.safetensors"
    try:
        config = read_json(Path(folder) / "config.json", {"widths": list})
        tensors = load_file(weights)
    except (Damaged, SafetensorError, OSError) as error:
        raise ValueError(
            f"the judge in {folder} is incomplete or damaged ({one_line(error)}): half a download? "
            "Bring it again"
        ) from error
    model = Judge(config["widths"])
    fill(model, tensors, str(folder))
    return model.eval()


def save_judge(model: Judge, folder: Path) -> None:
    """config.json and model.safetensors, the weights in float16 (half the bytes)."""
    with atomic(folder) as temporary:
        temporary.mkdir()
        write_json(temporary / "config.json", {"widths": model.widths, "classes": CLASSES})
        weights = {
            name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
            for name, value in model.state_dict().items()
        }
        save_file(weights, temporary / "model.safetensors", metadata={"format": "pt"})


def prepare(chosen: argparse.Namespace, device: torch.device) -> Training:
    """The judge on scenes of its own, softened, and their class names."""
    scenes = load_scenes("judge", chosen.train_scenes, chosen.scenes)
    fresh = load_scenes("eval", EVAL_SCENES, chosen.scenes)
    torch.manual_seed(chosen.seed)
    model = Judge().to(device, memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> torch.Tensor:
        return label_loss(model, scenes, BATCH, generator, device)

    def save() -> str:
        seen = torch.from_numpy(model.judge(fresh.images))
        save_judge(model, chosen.out)
        return f"fresh scenes: {classification_figures(seen, multi_hot(fresh.classes))}"

    settings = {
        "train_scenes": chosen.train_scenes,
        "batch": BATCH,
        "peak_lr": SCHEDULE.peak_lr,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    return Training({"judge": model}, settings, SCHEDULE, BATCH, loss, save, REPORT_SECONDS)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=EXIT_CODES)
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train the judge on drawn scenes")
    add_arguments(training, work=".scratch/train/judge", out=str(FOLDER), train_scenes=TRAIN_SCENES)
    naming = commands.add_parser("name", help="name the classes in 64x64 pictures")
    naming.add_argument("pictures", type=Path, nargs="+")
    naming.add_argument("--folder", type=Path, default=FOLDER)
    chosen = parser.parse_args(argv)
    if chosen.command == "train":
        run_training(prepare, chosen)
        return
    model = load_judge(chosen.folder)
    for path in chosen.pictures:
        picture = open_picture(path)
        if picture.shape != (SIZE, SIZE, 3):
            raise ValueError(
                f"{path}: expected a picture of {SIZE}x{SIZE} pixels, got "
                f"{picture.shape[1]}x{picture.shape[0]}; resize it first"
            )
        probabilities = model.judge([picture])[0]
        found = [f"{CLASSES[i]} {p:.2f}" for i, p in enumerate(probabilities) if p > 0.5]
        print(f"{path}: {', '.join(found) or 'nothing'}")


if __name__ == "__main__":
    sys.exit(exit_path(main)())
