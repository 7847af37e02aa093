"""Speed and memory at full size, with random weights: nothing is downloaded, any device will do.

    python -m benchmarks.full_size_speed [--shape sd-v1] [--dtype float16] [--batch-sizes 1 2 4 8]

For each batch size, all with the same pipeline object in the same process:

- `plain`: pictures a second of the diffusers pipeline as it is (DDIM, both guidance halves, VAE).
- `with_daam`: the same with the words' attention recorded, as the stage `images` samples.
- `grounded`: pictures a second with masks for two words each, as the stage `synthetic_dataset`
  draws them; `paper` adds one U-Net pass and the module, `seeded` its leave-one-out passes too.
- `training`: samples a second of the stage's own training steps of the grounding module, in
  `grounding.precision`, that recompute features from stored latents by one U-Net pass each, nothing
  cached, as at full size.
- `official`: samples a second of the authors' recipe, whose every step draws a new picture (batch
  1, a whole guided sampling run with its decoding) and taps the features on the way, which is
  counted as free. Their step also runs a detector; it is left out here, in their favour.
- `training_with_pictures`: ours with the cost of drawing every picture (with_daam) and of its
  evidence once, spread over --visits of the training to each picture. This is the figure to hold
  against `official`; a detector runs once a picture in ours, and is left out too.

Prints JSON, then a row of a markdown table for each batch size. Speed is the median of --repeats
after a warm-up; memory is the allocator's peak, weights included, on CUDA only.
"""

import argparse
import json
import platform
import sys

import torch

from benchmarks.bench import Bench
from benchmarks.random_weights import SHAPES
from ml.arguments import number
from ml.compute.devices import find_device
from ml.errors import EXIT_CODES, exit_path
from ml.grounding.config import VARIANTS

COLUMNS = (
    "device",
    "shape",
    "dtype",
    "batch",
    "plain /s",
    "with DAAM",
    "grounded, paper",
    "grounded, seeded",
    "training /s",
    "training with pictures /s",
    "official /s",
    "peak GB: drawing",
    "peak GB: training",
)


def measure(bench: Bench, batch: int, visits: int) -> dict:
    """Items a second and peak GB at one batch size; None where memory does not suffice."""
    plain, _ = bench.rate(batch, lambda: bench.plain(batch))
    daam, _ = bench.rate(batch, lambda: bench.with_daam(batch))
    grounded, drawing = {}, []
    for variant in VARIANTS:
        grounded[variant], peak = bench.rate(batch, lambda v=variant: bench.grounded(batch, v))
        drawing.append(peak)
    evidence, _ = bench.rate(batch, lambda: bench.evidence(batch))
    training, peak = bench.rate(batch, bench.training(batch))
    known = all((daam, evidence, training))
    return {
        "batch": batch,
        "plain": plain,
        "with_daam": daam,
        "grounded": grounded,
        "training": training,
        "peak_gb": {"drawing": max(drawing) if all(drawing) else None, "training": peak},
        "training_with_pictures": 1 / (1 / training + (1 / daam + 1 / evidence) / visits)
        if known
        else None,
    }


def row(result: dict, own: dict, official: float | None) -> str:
    """One row of the table of COLUMNS, with ratios to the baselines of the same run."""

    def ratio(value: float | None, base: float | None) -> str:
        if value is None:
            return "out of memory"
        return f"{value:.3g}" + (f" ({value / base:.2f}x)" if base else "")

    peaks = [f"{gb:.1f}" if gb else "-" for gb in own["peak_gb"].values()]
    cells = [
        result["device"],
        result["shape"],
        result["dtype"],
        str(own["batch"]),
        ratio(own["plain"], None),
        ratio(own["with_daam"], own["plain"]),
        *(ratio(own["grounded"][variant], own["plain"]) for variant in VARIANTS),
        ratio(own["training"], official),
        ratio(own["training_with_pictures"], official),
        ratio(official, None),
        *peaks,
    ]
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="sd-v1", choices=sorted(SHAPES))
    parser.add_argument("--tiny", action="store_true", help="--shape tiny: to see that it runs")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--dtype", help="float32, float16 or bfloat16; by default float16, on a CPU float32"
    )
    parser.add_argument("--batch-sizes", nargs="+", type=number(int, 1, 4096), default=[1, 2, 4, 8])
    parser.add_argument(
        "--steps", type=number(int, 2, 1000), default=50, help="denoising steps a picture"
    )
    parser.add_argument("--repeats", type=number(int, 1), default=3)
    parser.add_argument(
        "--visits", type=number(int, 1), default=10, help="of the training to each picture"
    )
    chosen = parser.parse_args(arguments)
    chosen.shape = "tiny" if chosen.tiny else chosen.shape
    on_cpu = find_device(chosen.device).type == "cpu"
    chosen.dtype = chosen.dtype or ("float32" if on_cpu else "float16")
    bench = Bench(chosen)
    device = (
        platform.processor() or platform.machine()
        if on_cpu
        else torch.cuda.get_device_name(bench.device)
    )
    official, _ = bench.rate(1, bench.official())
    result = {
        "device": device,
        "shape": chosen.shape,
        "dtype": chosen.dtype,
        "steps": chosen.steps,
        "torch": torch.__version__,
        "visits": chosen.visits,
        "official": official,
        "by_batch": [measure(bench, size, chosen.visits) for size in chosen.batch_sizes],
    }
    print(json.dumps(result, indent=2))
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for own in result["by_batch"]:
        print(row(result, own, official))
    return result


if __name__ == "__main__":
    sys.exit(exit_path(main)())
