"""Measures the micro checkpoints on scenes they never saw and writes their model card.

    python -m ml.foundation.measure --what all

Each part's figures go on the card with the digest of the model that they are about. With --count
they are only printed: few scenes say little.

Here: the measurements. The card's wording is in `card.py`, the judge in `judge.py`. A figure that
falls short of its target is printed as it is.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from ml.arguments import number
from ml.detectors import load_detector
from ml.drawn_world.world import CLASSES, Scene
from ml.errors import EXIT_CODES, exit_path
from ml.foundation.average_precision import mask_average_precision
from ml.foundation.batches import classification_figures, to_pixels
from ml.foundation.card import update_card
from ml.foundation.judge import load_judge
from ml.foundation.measure_pictures import measure_pictures, measure_transformer
from ml.foundation.scenes import fresh_scenes
from ml.foundation.train_backbone import class_probabilities, load_backbone

BATCH = 40


def drawn_classes(scenes: list[Scene]) -> torch.Tensor:
    """float32 (N,20), 1 where a class is drawn."""
    return torch.tensor([[float(c in scene.classes) for c in CLASSES] for scene in scenes])


@torch.inference_mode()
def measure_autoencoder(folder: Path, count: int) -> dict:
    """Peak signal-to-noise ratio of pictures decoded from the mean of their latents, dB.

    psnr_db is of the mean squared error over all pictures; the mean of the pictures' own ratios,
    which others report, is higher.
    """
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder / "diffusion" / "vae").eval()
    pixels = to_pixels(np.stack([scene.image for scene in fresh_scenes(count)]))
    errors = []
    for batch in pixels.split(BATCH):
        decoded = vae.decode(vae.encode(batch * 2 - 1).latent_dist.mode()).sample
        errors.append((((decoded + 1) / 2).clamp(0, 1) - batch).pow(2).mean((1, 2, 3)))
    error = torch.cat(errors)
    return {
        "scenes": count,
        "psnr_db": -10 * error.mean().log10().item(),
        "psnr_db_mean_of_pictures": -10 * error.log10().mean().item(),
    }


def measure_judge(folder: Path, count: int) -> dict:
    scenes = fresh_scenes(count)
    seen = load_judge(folder / "judge").judge(np.stack([scene.image for scene in scenes]))
    return {"scenes": count} | classification_figures(torch.from_numpy(seen), drawn_classes(scenes))


def measure_backbone(folder: Path, count: int) -> dict:
    scenes = fresh_scenes(count)
    model = load_backbone(folder / "backbone")
    seen = class_probabilities(model, to_pixels(np.stack([scene.image for scene in scenes])))
    return {"scenes": count} | classification_figures(seen, drawn_classes(scenes))


def measure_detector(folder: Path, count: int) -> dict:
    """COCO's mask average precision, in percent, and the speed."""
    detector = load_detector(
        "torchvision", folder / "detector", score_threshold=0.05, device="cpu", batch_size=16
    )
    scenes = fresh_scenes(count)
    started = time.perf_counter()
    found = detector.detect([scene.image for scene in scenes], CLASSES)
    seconds = time.perf_counter() - started
    return {
        "scenes": count,
        **mask_average_precision(scenes, found),
        "pictures_a_second": count / seconds,
        "threads": torch.get_num_threads(),
    }


# part: (measurement, its usual count)
PARTS = {
    "autoencoder": (measure_autoencoder, 500),
    "judge": (measure_judge, 500),
    "pictures": (measure_pictures, 300),
    "transformer": (measure_transformer, 300),
    "detector": (measure_detector, 500),
    "backbone": (measure_backbone, 500),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=EXIT_CODES)
    parser.add_argument("--what", choices=["all", *PARTS], default="all")
    parser.add_argument("--folder", type=Path, default=Path("data/foundation/micro"))
    parser.add_argument("--count", type=number(int, 1),
                        help="scenes or pictures, for a quick look; writes nothing")  # fmt: skip
    parser.add_argument("--training", type=Path, default=Path(".scratch/train"),
                        help="where the trainers left their work folders")  # fmt: skip
    args = parser.parse_args(argv)
    for part in PARTS if args.what == "all" else [args.what]:
        measure, usual = PARTS[part]
        figures = measure(args.folder, args.count or usual)
        print(part, *(f"  {name}: {shown(value)}" for name, value in figures.items()), sep="\n")
        if args.count is None:
            update_card(args.folder, args.training, part, figures)
    if args.count is None:
        print(f"written: {args.folder / 'card.json'} and {args.folder / 'MODEL_CARD.md'}")


def shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
