"""Speed and memory at full size, with random weights: nothing is downloaded, any device will do.

    python -m benchmarks.full_size_speed [--shape sd-v1] [--dtype float16] [--batch-sizes 1 2 4 8]

For each batch size, all with the same pipeline object in the same process:

- `plain`: pictures a second of the diffusers pipeline as it is (DDIM, both guidance halves, VAE).
- `with_daam`: the same with the words' attention recorded, as the stage `images` samples.
- `grounded`: pictures a second with masks for two words each, as the stage `synthetic_dataset`
  draws them; `paper` adds one U-Net pass and the module, `seeded` its leave-one-out passes too.
- `training`: samples a second of training steps of the grounding module that recompute features
  from stored latents by one U-Net pass each, nothing cached, as at full size.
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
import dataclasses
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.random_weights import SHAPES, random_pipeline
from ml.arguments import number
from ml.compute.batching import Batches, is_out_of_memory
from ml.compute.devices import find_device
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.features import feature_channels
from ml.diffusion.loading import latent_shape, picture_size, prepare_pipeline
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import text_width
from ml.errors import EXIT_CODES, OutOfMemory, exit_path
from ml.grounding.config import VARIANTS, make_config
from ml.grounding.engine import GroundingEngine
from ml.grounding.features import Batch, FeatureSource, compute_evidence
from ml.grounding.module import GroundingModule
from ml.grounding.samples import Sample
from ml.grounding.training import compute_loss
from ml.images.run_lengths import encode_rle
from ml.images.stored import Pictures
from ml.settings.profile import load_params

PROMPT, WORDS = "a photograph of a dog and a cat", ("dog", "cat")
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


class Bench:
    """One pipeline and a grounding module of each variant, ready on the device."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.steps, self.repeats = chosen.steps, chosen.repeats
        self.settings = dataclasses.replace(
            load_params().diffusion,
            scheduler="DDIMScheduler",
            steps=chosen.steps,
            device=chosen.device,
            dtype=chosen.dtype,
        )
        self.device = find_device(chosen.device)
        self.pipe = prepare_pipeline(
            random_pipeline(chosen.shape, str(self.device), getattr(torch, chosen.dtype)),
            self.settings,
        )
        sizes = {} if chosen.shape.startswith("tiny") else {"width": 512, "heads": 8}
        self.grounding = dataclasses.replace(load_params().grounding, layers=3, **sizes)
        self.modules = {
            variant: GroundingModule(
                make_config(
                    self.grounding,
                    feature_channels(self.pipe.unet),
                    text_width(self.pipe),
                    picture_size(self.pipe)[0],
                    1,
                    variant,
                )
            ).to(self.device)
            for variant in VARIANTS
        }

    def rate(self, count: int, work: Callable[[], object]) -> tuple[float | None, float | None]:
        """Items a second of work that does `count` of them, and its peak of memory in GB.

        (None, None) when the device has not enough memory.
        """
        cuda, seconds = self.device.type == "cuda", []
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            for _ in range(1 + self.repeats):
                started = time.perf_counter()
                work()
                if cuda:
                    torch.cuda.synchronize(self.device)
                seconds.append(time.perf_counter() - started)
        except OutOfMemory:
            return None, None
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return None, None
        peak = torch.cuda.max_memory_allocated(self.device) / 1e9 if cuda else None
        return count / statistics.median(seconds[1:]), peak

    def plain(self, batch: int) -> None:
        self.pipe(
            **encode_prompts(self.pipe, [PROMPT] * batch).sampling(),
            **encode_prompts(self.pipe, [""] * batch).sampling("negative_"),
            num_inference_steps=self.steps,
            guidance_scale=7.5,
            output_type="np",
            generator=[torch.Generator().manual_seed(i) for i in range(batch)],
        )

    def with_daam(self, batch: int) -> None:
        sample(
            self.pipe,
            [PROMPT] * batch,
            range(batch),
            steps=self.steps,
            guidance_scale=7.5,
            words=[WORDS] * batch,
        )

    def grounded(self, batch: int, variant: str) -> None:
        grounded = GroundingEngine(self.pipe, self.modules[variant], batch)
        grounded.draw(
            [PROMPT] * batch,
            [WORDS] * batch,
            seeds=list(range(batch)),
            steps=self.steps,
            guidance_scale=7.5,
        )
        if grounded.batches.size < batch:
            raise OutOfMemory("the batch was halved")

    def evidence(self, batch: int) -> None:
        images = np.zeros((batch, *picture_size(self.pipe), 3), np.uint8)
        batches = Batches(batch)
        compute_evidence(
            self.pipe,
            images,
            [PROMPT] * batch,
            [["a dog", "a cat"]] * batch,
            self.grounding.evidence_timesteps,
            list(range(batch)),
            batches,
        )
        if batches.size < batch:
            raise OutOfMemory("the batch was halved")

    def source(self, batch: int) -> FeatureSource:
        """Made-up samples: latents of noise, evidence of noise, a rectangle for each word."""
        rng, (height, width) = np.random.default_rng(0), picture_size(self.pipe)
        mask = np.zeros((height, width), bool)
        mask[height // 4 : height // 2, width // 4 : width // 2] = True
        latent = latent_shape(self.pipe)
        samples = [
            Sample(
                key=f"{i}",
                text=PROMPT,
                entities=WORDS,
                words=WORDS,
                phrases=("a dog", "a cat"),
                cell="two_seen",
                subset="train",
                seed=i,
                size=(height, width),
                shard=Path(),
                row=0,
                pictures=Pictures(),
                latent=rng.standard_normal(latent).astype(np.float32),
                timestep=1,
                rles=(encode_rle(mask),) * 2,
                daam=np.zeros((2, *latent[1:]), np.float32),
            )
            for i in range(batch)
        ]
        times = len(self.grounding.evidence_timesteps)
        evidence = [rng.random((2, times, *latent[1:])).astype(np.float32) for _ in samples]
        return FeatureSource(self.pipe, samples, evidence, cache_bytes=0)

    def training(self, batch: int) -> Callable[[], None]:
        """A training step of the seeded variant (the dearer one) on recomputed features."""
        source, module = self.source(batch), self.modules["seeded"]
        optimizer = torch.optim.AdamW(module.parameters(), 1e-4)

        def step() -> None:
            learn(module, optimizer, source.batch(range(batch)))
            if source.batches.size < batch:
                raise OutOfMemory("the batch was halved")

        return step

    def official(self) -> Callable[[], None]:
        module = self.modules["paper"]
        optimizer = torch.optim.Adam(module.parameters(), 1e-5)
        tapped = self.source(1).batch([0])  # found on the way: free

        def step() -> None:
            self.plain(1)
            learn(module, optimizer, tapped)

        return step


def learn(module: GroundingModule, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    logits = module.train()(batch.features, batch.text, batch.valid, batch.evidence)
    loss = compute_loss(module, logits, batch, 0.0)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    module.eval()


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
