"""What compiling and fusing the U-Net is worth: speed, the pictures, and whether masks still work.

    python -m benchmarks.compiled [--shape tiny] [--batch-size 8] [--steps 50] [--ways ...]

Each way gets a fresh pipeline of the same random weights. Printed of each: seconds of its first
call (compiling included), pictures a second over eager, from how many pictures on the first call is
paid for, PSNR of its pictures against eager's, the largest relative difference of the features that
masks are made of, and of DAAM's maps. `another batch` is eager with one picture fewer at once: what
is no further from eager than that is as good as equal. What fails is printed with its error, and
the next way goes on.
"""

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.bench import PROMPT, WORDS
from benchmarks.random_weights import SHAPES, random_pipeline
from ml.arguments import number
from ml.compute.devices import find_device
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.sampling import Samples, sample
from ml.errors import EXIT_CODES, exit_path

WAYS: dict[str, Callable[[Pipeline], object]] = {
    "eager": lambda pipe: None,
    "another batch": lambda pipe: None,
    "channels last": lambda pipe: pipe.unet.to(memory_format=torch.channels_last),
    "fused QKV": lambda pipe: pipe.unet.fuse_qkv_projections(),
    "blocks compiled": lambda pipe: pipe.unet.compile_repeated_blocks(dynamic=False),
    "whole compiled": lambda pipe: pipe.unet.compile(dynamic=False),
}


def draw(pipe: Pipeline, batch: int, steps: int, heat: bool = False, at_once: int = 0) -> Samples:
    """The first pictures of a batch, with features, or with DAAM instead."""
    count = at_once or batch
    return sample(
        pipe,
        [PROMPT] * count,
        range(count),
        steps=steps,
        guidance_scale=7.5,
        features=not heat,
        words=[WORDS] * count if heat else None,
    )


def clocked(work: Callable[[], Samples], device: torch.device) -> tuple[float, Samples]:
    started = time.perf_counter()
    made = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, made


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """dB between pictures uint8; infinite where they are equal."""
    error = np.square(one.astype(float) - other).mean()
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def furthest(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """The largest difference, each as a share of the largest number of its first."""
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--batch-size", type=number(int, 2, 4096), default=8)
    parser.add_argument("--steps", type=number(int, 2, 1000), default=50)
    parser.add_argument("--repeats", type=number(int, 1), default=3)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    chosen = parser.parse_args(arguments)
    device = find_device(chosen.device)
    shape = chosen.shape or ("tiny" if device.type == "cpu" else "sd-v1")
    dtype = torch.float32 if device.type == "cpu" else torch.float16
    batch, steps = chosen.batch_size, chosen.steps
    eager: tuple[float, Samples, Samples] | None = None
    for name in ["eager", *(way for way in chosen.ways if way != "eager")]:
        at_once = batch - 1 if name == "another batch" else batch
        pipe = random_pipeline(shape, str(device), dtype)

        def work(pipe: Pipeline = pipe, at_once: int = at_once) -> Samples:
            return draw(pipe, batch, steps, at_once=at_once)

        try:
            WAYS[name](pipe)
            first, made = clocked(work, device)
            seconds = float(np.median([clocked(work, device)[0] for _ in range(chosen.repeats)]))
            hot = draw(pipe, batch, steps, heat=True, at_once=at_once)
        except Exception as error:  # of compilers, of many kinds: the other ways are still of use
            print(f"{name}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
            if eager is None:
                raise
            continue
        each = seconds / at_once
        if eager is None:
            eager = each, made, hot
        base, true, heat = eager
        assert made.features and true.features and hot.daam and heat.daam
        features = furthest([(true.features[r][:at_once], f) for r, f in made.features.items()])
        maps = furthest(list(zip(heat.daam[:at_once], hot.daam, strict=True)))
        saved = base - each
        paid = f"paid from {(first - seconds) / saved:.0f} pictures on, " if saved > 0 else ""
        print(
            f"{name}: first call {first:.1f} s, {1 / each:.3g} pictures a second, "
            f"{base / each:.2f}x eager, {paid}PSNR {psnr(true.images[:at_once], made.images):.1f} "
            f"dB, features {features:.1e}, DAAM {maps:.1e}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(exit_path(main)())
