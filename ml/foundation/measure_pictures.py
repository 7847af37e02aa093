"""How often the judge sees in a generated picture what the prompt asked for."""

import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from ml.drawn_world.world import CLASSES
from ml.foundation.judge import load_judge
from ml.foundation.train_transformer import ABSENT
from ml.words.phrases import phrase
from ml.words.vocabulary import synonyms

STEPS, GUIDANCE = 15, 4.0
BATCH = 40


def generate(pipeline, prompts: list[str], first_seed: int, **options) -> np.ndarray:
    """uint8 (N,64,64,3); picture i from seed first_seed + i, whatever the batch. options: of the
    pipeline's call."""
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
            **options,
        )
        pictures.append((output.images * 255).round().astype(np.uint8))
    return np.concatenate(pictures)


def measure_pictures(folder: Path, count: int) -> dict:
    """`judged` of the U-Net's pictures."""
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(folder / "diffusion")
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    return judged(pipeline, folder, count)


def measure_transformer(folder: Path, count: int) -> dict:
    """`judged` of the diffusion transformer's pictures, drawn as it was trained: with one token for
    the absent T5."""
    return judged(load_transformer(folder), folder, count, max_sequence_length=ABSENT)


def load_transformer(folder: Path):
    """A folder's StableDiffusion3Pipeline in float32."""
    from diffusers import StableDiffusion3Pipeline

    return StableDiffusion3Pipeline.from_pretrained(
        folder / "transformer", text_encoder_3=None, tokenizer_3=None, torch_dtype=torch.float32
    )


def judged(pipeline, folder: Path, count: int, **options) -> dict:
    """What the judge of a folder sees in generated pictures. options: of the pipeline's call.

    count: pictures with two objects (random pairs); one-object pictures are count / 15 seeds of
    each class, 20 at the usual 300.
    """
    pipeline.set_progress_bar_config(disable=True)
    judge = load_judge(folder / "judge")
    seeds = max(1, count // 15)
    rng = np.random.default_rng(0)
    pairs = [rng.choice(len(CLASSES), 2, replace=False) for _ in range(count)]
    words = [phrase(synonyms()[name][0]) for name in CLASSES]
    one = [f"a photograph of {words[c]}" for c in range(len(CLASSES)) for _ in range(seeds)]
    two = [f"a photograph of {words[a]} and {words[b]}" for a, b in pairs]
    started = time.perf_counter()
    pictures = generate(pipeline, one + two, first_seed=0, **options)
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
