"""A pipeline of random weights and both grounding modules at work: what the benchmarks time."""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.random_weights import random_pipeline
from ml.compute.batching import Batches, is_out_of_memory
from ml.compute.devices import find_device
from ml.compute.precision import mixed_precision
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.features import feature_channels
from ml.diffusion.loading import guard, latent_shape, picture_size, prepare_pipeline, unwatched
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import text_width
from ml.errors import OutOfMemory
from ml.grounding.config import VARIANTS, make_config
from ml.grounding.engine import GroundingEngine
from ml.grounding.features import Batch, FeatureSource, compute_evidence
from ml.grounding.module import GroundingModule
from ml.grounding.samples import Sample
from ml.grounding.training import TEXT_DROPOUT, compute_loss, optimizer_step
from ml.images.run_lengths import encode_rle
from ml.images.stored import Pictures
from ml.settings.profile import load_params

PROMPT, WORDS = "a photograph of a dog and a cat", ("dog", "cat")


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
        pipe = random_pipeline(chosen.shape, str(self.device), getattr(torch, chosen.dtype))
        guard(pipe)  # as `load_pipeline` leaves it
        self.pipe = prepare_pipeline(pipe, self.settings)
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
        """Without a look at each prediction for numbers that are not finite, as diffusers draws."""
        with unwatched():
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
        """The stage's own step of the seeded variant (the dearer one), on recomputed features."""
        source, module = self.source(batch), self.modules["seeded"]
        optimizer = torch.optim.AdamW(module.parameters(), 1e-4)
        own = dataclasses.replace(self.grounding, batch_size=batch)

        def step() -> None:
            module.train()
            _, most = optimizer_step(module, optimizer, source, own, 0, 0, batch, TEXT_DROPOUT)
            if min(most, source.batches.size) < batch:
                raise OutOfMemory("the batch was halved")

        return step

    def official(self) -> Callable[[], None]:
        module = self.modules["paper"]
        optimizer = torch.optim.Adam(module.parameters(), 1e-5)
        tapped = self.source(1).batch([0])  # found on the way: free

        def step() -> None:
            self.plain(1)
            learn(module, optimizer, tapped, self.grounding.precision)

        return step


def learn(
    module: GroundingModule, optimizer: torch.optim.Optimizer, batch: Batch, precision: str
) -> None:
    """A step on what is there already. precision: of the forward pass, as the stage trains."""
    module.train()
    with mixed_precision(precision, batch.text.device.type):
        logits = module(batch.features, batch.text, batch.valid, batch.evidence)
    loss = compute_loss(module, logits, batch, 0.0)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    module.eval()
