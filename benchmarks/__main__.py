"""The ratios that this project claims, all in one run, on any device: `make bench`.

    python -m benchmarks [--shape tiny] [--batch-size 8] [--steps 50] [--pictures 16]

On a GPU the full shape of Stable Diffusion v1 with random weights (nothing is downloaded), 50 steps
a picture; on a CPU the tiny shape and 10 steps. Prints figures, each beside the baseline of the
same run that it is held against. `job / model` is the clock's time of a whole job, PNGs and Parquet
included, over the time that the model alone takes for the same pictures or steps; `ten times`
draws, encodes and writes ten times the pictures, which should take no more memory, main or the
GPU's. What handles the data without a model is timed by `benchmarks.scale`.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.bench import PROMPT, Bench
from benchmarks.jobs import drawing, training
from benchmarks.random_weights import SHAPES
from ml.arguments import number
from ml.compute.devices import find_device
from ml.errors import EXIT_CODES, exit_path
from ml.grounding.config import VARIANTS

Row = tuple[str, float, str]
"""What, the figure, and what it is."""


def ratios(bench: Bench, batch: int) -> list[Row]:
    """Drawing and training over their baselines."""
    plain, _ = bench.rate(batch, lambda: bench.plain(batch))
    if plain is None:
        raise ValueError(f"{batch} pictures at once do not fit: take a smaller --batch-size")
    rows: list[Row] = [("plain diffusers", plain, "pictures a second")]

    def over(what: str, work: Callable[[], object], base: float, said: str) -> None:
        rate, _ = bench.rate(batch, work)
        rows.append((what, float("nan") if rate is None else rate / base, said))

    over("DAAM, recorded here", lambda: bench.with_daam(batch), plain, "x plain")
    if importlib.util.find_spec("daam"):
        rate, _ = bench.rate(1, lambda: authors_daam(bench))
        alone, _ = bench.rate(1, lambda: bench.plain(1))
        found = float("nan") if rate is None or alone is None else rate / alone
        rows.append(("DAAM, its authors' package, one picture", found, "x plain, one picture"))
    for variant in VARIANTS:
        over(f"grounded, {variant}", lambda v=variant: bench.grounded(batch, v), plain, "x plain")
    official, _ = bench.rate(1, bench.official())
    if official is None:
        raise ValueError("the official recipe does not fit the memory")
    over("training", bench.training(batch), official, "x the official recipe's samples")
    return rows


def authors_daam(bench: Bench) -> None:
    from daam import trace

    with torch.no_grad(), trace(bench.pipe) as watched:
        bench.pipe(PROMPT, num_inference_steps=bench.steps, guidance_scale=7.5, output_type="np")
        watched.compute_global_heat_map()


def whole_jobs(bench: Bench, batch: int, pictures: int) -> list[Row]:
    """What whole jobs lose around the model, and what ten times the work takes."""
    once, learnt = drawing(bench, batch, pictures), training(bench, batch)
    more = drawing(bench, batch, 10 * pictures, beside_model=False)
    rows = [
        ("images: job / model", once.share, f"of {once.model:.1f} s for {pictures} pictures"),
        ("grounding_model: job / model", learnt.share, f"of {learnt.model:.3f} s a step"),
        ("ten times the pictures: time", more.wall / once.wall, f"x {once.wall:.1f} s"),
        ("ten times the pictures: main memory", more.peak / once.peak, f"x {once.peak:.0f} MB"),
    ]
    if once.gpu_peak is not None and more.gpu_peak is not None:
        growth, said = more.gpu_peak / once.gpu_peak, f"x {once.gpu_peak:.0f} MB"
        rows.append(("ten times the pictures: GPU memory", growth, said))
    return rows


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--shape", choices=sorted(SHAPES))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--dtype", help="by default float16, on a CPU float32")
    parser.add_argument("--batch-size", type=number(int, 1, 4096), default=8)
    parser.add_argument("--steps", type=number(int, 2, 1000))
    parser.add_argument("--repeats", type=number(int, 1), default=3)
    parser.add_argument("--pictures", type=number(int, 1), default=16, help="of the small job")
    chosen = parser.parse_args(arguments)
    on_cpu = find_device(chosen.device).type == "cpu"
    chosen.shape = chosen.shape or ("tiny" if on_cpu else "sd-v1")
    chosen.steps = chosen.steps or (10 if on_cpu else 50)
    chosen.dtype = chosen.dtype or ("float32" if on_cpu else "float16")
    started, bench = time.perf_counter(), Bench(chosen)
    name = "CPU" if on_cpu else torch.cuda.get_device_name(bench.device)
    print(
        f"{name}, {chosen.shape}, {chosen.dtype}, batch {chosen.batch_size}, "
        f"{chosen.steps} steps, torch {torch.__version__}"
    )
    rows = ratios(bench, chosen.batch_size)
    rows += whole_jobs(bench, chosen.batch_size, chosen.pictures)
    for what, figure, said in rows:
        print(f"| {what} | {figure:.3g} | {said} |")
    print(f"{time.perf_counter() - started:.0f} s in all")
    return rows


if __name__ == "__main__":
    sys.exit(exit_path(main)())
