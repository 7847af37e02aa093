"""Whole jobs of the pipeline beside the model's own time in them: what is lost around the model.

Pictures are drawn, encoded and written as the stage `images` does it, and a grounding module is
trained as `grounding_model` does it, on the same random weights as `benchmarks.bench`.
"""

import contextlib
import io
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.bench import PROMPT, WORDS, Bench, learn
from benchmarks.memory import watched_peak
from ml.cli.planning.timing import step_seconds, timed
from ml.diffusion.features import denoiser_features
from ml.diffusion.loading import unwatched
from ml.diffusion.sampling import sample
from ml.grounding.training import train
from ml.pipeline.stages.images import ShardMaker
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from ml.store.making import write_shards
from ml.store.schemas import IMAGES
from ml.store.shards import split


@dataclass(frozen=True)
class Job:
    """Of one job: the clock's seconds, the model's own of them, and the peaks of memory in MB."""

    wall: float
    model: float  # NaN where it was not asked for
    peak: float  # of main memory
    gpu_peak: float | None  # of the allocator; None without a GPU

    @property
    def share(self) -> float:
        """Wall over model: 1 where nothing is lost."""
        return self.wall / self.model


def drawing(bench: Bench, batch: int, pictures: int, beside_model: bool = True) -> Job:
    """So many pictures from prompts to shards, in shards of four batches.

    beside_model: draws them once more without a job around it, for `Job.model`.
    """
    params = load_params()
    params = replace(params, diffusion=replace(bench.settings, batch_size=batch))
    prompts = [_prompt(number) for number in range(pictures)]
    words = [list(WORDS)] * batch

    def alone() -> None:
        for part in split(prompts, batch):
            sample(
                bench.pipe,
                [prompt["text"] for prompt in part],
                [prompt["seed"] for prompt in part],
                steps=bench.steps,
                guidance_scale=params.diffusion.guidance_scale,
                words=words[: len(part)],
            )

    def job() -> None:
        with tempfile.TemporaryDirectory() as place:
            workspace = Workspace(Path(place), "bench")
            make = ShardMaker(params, workspace)
            make.pipe = bench.pipe
            plan = split(prompts, 4 * batch)
            write_shards(workspace.folder("images"), "bench", plan, make, IMAGES)

    sample(bench.pipe, [PROMPT] * batch, range(batch), steps=2, guidance_scale=7.5, words=words)
    return _job(bench, job, timed(alone) if beside_model else math.nan)


def training(bench: Bench, batch: int) -> Job:
    """A step of the stage's own loop, and the same features and module on what is there already."""
    source = bench.source(4 * batch)
    module = bench.modules["seeded"]
    settings = replace(bench.grounding, batch_size=batch, patience=10**6)
    entities = [sample.entities for sample in source.samples]

    def steps(number: int, size: int) -> None:
        own = replace(settings, steps=number, evaluate_every=number, batch_size=size)
        train(module, source, source, entities, own, 0)

    ready = source.batch(range(batch))
    latents = torch.stack([torch.from_numpy(s.latent) for s in source.samples[:batch]])
    latents = latents.to(bench.device)
    optimizer = torch.optim.AdamW(module.parameters(), 1e-4)

    def alone() -> None:
        with unwatched():  # as the stage's own passes on a GPU
            ready.features = denoiser_features(bench.pipe, latents, [PROMPT] * batch, 1)
        learn(module, optimizer, ready, settings.precision)

    rate, _ = bench.rate(1, alone)
    if rate is None:
        raise ValueError(f"a training step of {batch} does not fit: take a smaller --batch-size")
    found: list[float] = []
    job = _job(bench, lambda: found.append(step_seconds(steps, batch)), 1 / rate)
    return replace(job, wall=found[0])


def _job(bench: Bench, work: Callable[[], object], model: float) -> Job:
    def job() -> None:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            work()

    cuda = bench.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats(bench.device)
    with watched_peak(0.05) as peak:
        wall = timed(job)
    gpu_peak = torch.cuda.max_memory_allocated(bench.device) / 2**20 if cuda else None
    return Job(wall, model, peak.mb, gpu_peak)


def _prompt(number: int) -> dict[str, Any]:
    """A row of the PROMPTS schema."""
    return {
        "key": f"train-{number:06d}",
        "text": PROMPT,
        "entities": list(WORDS),
        "words": list(WORDS),
        "phrases": [f"a {word}" for word in WORDS],
        "seed": number,
        "purpose": "train",
        "cell": "two_seen",
    }
