"""Measures the micro checkpoints on scenes they never saw and writes their model card.

    python -m ml.foundation.measure --what all

Here: the measurements. The card's wording is in `card.py`, the judge in `judge.py`. A figure that
falls short of its target is printed as it is.
"""

import argparse
import contextlib
import io
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tqdm import tqdm

from ml.arguments import number
from ml.detectors import Instances, load_detector
from ml.drawn_world.world import CLASSES, Scene, draw_scene, scene_seed
from ml.errors import EXIT_CODES, exit_path
from ml.foundation.batches import classification_figures, to_pixels
from ml.foundation.card import update_card
from ml.foundation.judge import load_judge
from ml.foundation.train_backbone import class_probabilities, load_backbone
from ml.words.phrases import phrase
from ml.words.vocabulary import synonyms

STEPS = 15
GUIDANCE = 4.0
BATCH = 40


def fresh_scenes(count: int) -> list[Scene]:
    """Drawn scenes that nothing was trained on: the first seeds of the purpose "eval"."""
    return [draw_scene(scene_seed("eval", index)) for index in range(count)]


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


def generate(pipeline, prompts: list[str], first_seed: int) -> np.ndarray:
    """uint8 (N,64,64,3); picture i from seed first_seed + i, whatever the batch."""
    pictures = []
    for start in tqdm(range(0, len(prompts), BATCH), desc="sampling", unit="batch"):
        chunk = prompts[start : start + BATCH]
        seeds = [first_seed + start + i for i in range(len(chunk))]
        output = pipeline(
            chunk,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="np",
        )
        pictures.append((output.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def measure_pictures(folder: Path, count: int) -> dict:
    """What the judge sees in generated pictures.

    count: pictures with two objects (random pairs); one-object pictures are count / 15 seeds of
    each class, 20 at the usual 300.
    """
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder / "diffusion")
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    judge = load_judge(folder / "judge")
    seeds = max(1, count // 15)
    rng = np.random.default_rng(0)
    pairs = [rng.choice(len(CLASSES), 2, replace=False) for _ in range(count)]
    words = [phrase(synonyms()[name][0]) for name in CLASSES]
    one = [f"a photograph of {words[c]}" for c in range(len(CLASSES)) for _ in range(seeds)]
    two = [f"a photograph of {words[a]} and {words[b]}" for a, b in pairs]
    started = time.perf_counter()
    pictures = generate(pipeline, one + two, first_seed=0)
    seconds = time.perf_counter() - started
    seen = judge.judge(pictures) > 0.5
    prompted = np.arange(len(one)) // seeds
    found = seen[np.arange(len(one)), prompted].reshape(len(CLASSES), seeds).mean(1)
    wanted = np.zeros((count, len(CLASSES)), bool)
    wanted[np.arange(count)[:, None], np.array(pairs)] = True
    both = seen[len(one) :]
    worst = int(found.argmin())
    return {
        "steps": STEPS,
        "guidance_scale": GUIDANCE,
        "one_object_pictures": len(one),
        "one_object_seen": 100 * float(found.mean()),
        "worst_class": CLASSES[worst],
        "worst_class_seen": 100 * float(found[worst]),
        "by_class": {name: 100 * float(share) for name, share in zip(CLASSES, found, strict=True)},
        "two_object_pictures": count,
        "two_objects_exactly": 100 * float((both == wanted).all(1).mean()),
        "two_objects_both_seen": 100 * float((both | ~wanted).all(1).mean()),
        "seconds_a_picture": seconds / len(pictures),
        "threads": torch.get_num_threads(),
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


def mask_average_precision(scenes: list[Scene], found: list[Instances]) -> dict:
    """pycocotools' mask AP (mean over IoU 0.5 to 0.95) and AP50 over 20 classes, in percent."""

    def encode(mask: np.ndarray) -> dict:
        return rle.encode(np.asfortranarray(mask.astype(np.uint8)))

    truth = [
        {"image_id": i, "category_id": CLASSES.index(name) + 1, "segmentation": encode(mask),
         "area": int(mask.sum()), "iscrowd": 0}
        for i, scene in enumerate(scenes)
        for name, mask in zip(scene.classes, scene.masks, strict=True)
    ]  # fmt: skip
    results = [
        {"image_id": i, "category_id": CLASSES.index(name) + 1, "segmentation": encode(mask),
         "score": float(score)}
        for i, instances in enumerate(found)
        for name, mask, score in zip(
            instances.labels, instances.masks, instances.scores, strict=True)
    ]  # fmt: skip
    if not results:  # COCO.loadRes cannot take an empty list
        return dict(mask_ap50=0.0, mask_ap=0.0, worst_class=CLASSES[0], worst_class_ap50=0.0)
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i, "height": 64, "width": 64} for i in range(len(scenes))],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
        "annotations": [row | {"id": i + 1} for i, row in enumerate(truth)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its own progress
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), iouType="segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # precision is (IoU thresholds, recalls, classes, areas, detections); -1 where never drawn.
    by_class = evaluation.eval["precision"][0, :, :, 0, -1].mean(0)
    worst = int(np.where(by_class < 0, np.inf, by_class).argmin())
    return {
        "mask_ap50": 100 * float(evaluation.stats[1]),
        "mask_ap": 100 * float(evaluation.stats[0]),
        "worst_class": CLASSES[worst],
        "worst_class_ap50": 100 * float(by_class[worst]),
    }


# part: (measurement, its usual count)
PARTS = {
    "autoencoder": (measure_autoencoder, 500),
    "judge": (measure_judge, 500),
    "pictures": (measure_pictures, 300),
    "detector": (measure_detector, 500),
    "backbone": (measure_backbone, 500),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=EXIT_CODES)
    parser.add_argument("--what", choices=["all", *PARTS], default="all")
    parser.add_argument("--folder", type=Path, default=Path("data/foundation/micro"))
    parser.add_argument("--count", type=number(int, 1), help="scenes or pictures, for a quick look")
    parser.add_argument("--training", type=Path, default=Path(".scratch/train"),
                        help="where the trainers left <model>/settings.json")  # fmt: skip
    args = parser.parse_args(argv)
    for part in PARTS if args.what == "all" else [args.what]:
        measure, usual = PARTS[part]
        figures = measure(args.folder, args.count or usual)
        print(part, *(f"  {name}: {shown(value)}" for name, value in figures.items()), sep="\n")
        update_card(args.folder, args.training, part, figures)
    print(f"written: {args.folder / 'card.json'} and {args.folder / 'MODEL_CARD.md'}")


def shown(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
