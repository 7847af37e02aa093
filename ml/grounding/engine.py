"""Masks for words in batches, arrays in and arrays out: a frozen diffusion model and a grounding
module together.

What the stages, the studies and the benchmarks run. Not here: prompts, pictures and outputs in the
manner of diffusers, and saved folders (`pipeline.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Self

import numpy as np
import torch
from torch import Tensor

from ml.compute.batching import Batches
from ml.diffusion.features import denoiser_features
from ml.diffusion.latents import add_noise, encode_images
from ml.diffusion.pipeline import Pipeline, device_of
from ml.diffusion.sampling import StepCallback, sample
from ml.diffusion.schedulers import TIMESTEPS
from ml.diffusion.tokens import refuse_long
from ml.grounding.arguments import DRAWING, SEED, number
from ml.grounding.config import GroundingConfig
from ml.grounding.features import Words, collate, compute_evidence
from ml.grounding.grounded import Grounded, joined, scattered
from ml.grounding.module import GroundingModule, masks_from_logits, probabilities
from ml.grounding.presence import presence
from ml.grounding.prompting import Asked, ask, check_lengths, keep_words
from ml.grounding.samples import Sample
from ml.settings.ranges import Range
from ml.words.phrases import query_text

TIMESTEP = Annotated[int, Range(0, TIMESTEPS - 1)]
PRESENCE = Annotated[float, Range(-1e30, 1e30)]  # any that is finite


class GroundingEngine:
    """`draw` makes pictures and masks the words of their prompts; `ground` masks given pictures."""

    def __init__(
        self,
        pipe: Pipeline,
        module: GroundingModule,
        batch_size: int = 16,
        queries: Mapping[str, Tensor] | None = None,
    ) -> None:
        """pipe: from `ml.diffusion.loading.load_pipeline`. The module moves to its device.

        batch_size: pictures at once, less when the device has not enough memory for them. queries:
        learned ones of words (`ml.grounding.teaching`), used wherever these words are asked for.
        """
        self.pipe = pipe
        self.module: GroundingModule = module.to(device_of(pipe)).eval()
        self.batches = Batches(batch_size)
        self.words = Words(pipe, queries)

    @property
    def config(self) -> GroundingConfig:
        return self.module.config

    def to(self, device: torch.device) -> Self:
        """Moves both models; returns itself."""
        self.pipe, self.module = self.pipe.to(device), self.module.to(device)
        return self

    def draw(
        self,
        prompts: Sequence[str],
        entities: Sequence[Sequence[str]],
        *,
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float,
        phrases: Sequence[Sequence[str]] | None = None,
        callback: StepCallback | None = None,
    ) -> Grounded:
        """`draw_batches`, all in one."""
        found = list(
            self.draw_batches(
                prompts,
                entities,
                seeds=seeds,
                steps=steps,
                guidance_scale=guidance_scale,
                phrases=phrases,
                callback=callback,
            )
        )
        return joined(np.concatenate([made.images for made in found]), found)

    def draw_batches(
        self,
        prompts: Sequence[str],
        entities: Sequence[Sequence[str]],
        *,
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float,
        phrases: Sequence[Sequence[str]] | None = None,
        callback: StepCallback | None = None,
    ) -> Iterator[Grounded]:
        """Draws a picture for each prompt and masks the words that `entities` lists for it; yields
        each batch when it is made.

        entities: words as they stand in the prompt ("dining table"), a list for each prompt.
        phrases: what to leave out for the contrast ("a red dining table"), as they stand in the
        prompt; by default the word and its article. callback: `ml.diffusion.sampling.sample`, once
        a step of every batch. A picture depends on its own prompt and seed alone. Raises ValueError
        when lengths differ, for a word or phrase that is not in its prompt or asked for twice, and
        for a prompt longer than the text encoder reads.
        """
        check_lengths(prompts=prompts, entities=entities, seeds=seeds)
        seeds = [number("seeds", seed, SEED) for seed in seeds]
        steps = number("steps", steps, DRAWING["num_inference_steps"])
        guidance_scale = number("guidance_scale", guidance_scale, DRAWING["guidance_scale"])
        checked = self.asked(entities, prompts, phrases)

        def make(part: Sequence[tuple[Asked, int]]) -> Grounded:
            asked, noise = [own for own, _ in part], [seed for _, seed in part]
            texts = [own.prompt for own in asked]
            made = sample(
                self.pipe,
                texts,
                noise,
                steps=steps,
                guidance_scale=guidance_scale,
                callback=callback,
                features=True,
            )
            assert made.features is not None
            return self.ground_features(
                made.features,
                made.images,
                texts,
                [own.words for own in asked],
                [own.phrases for own in asked],
                noise,
            )

        wanted = list(zip(checked, seeds, strict=True))
        return (made for _, made in self.batches.run(wanted, make))

    def ground(
        self,
        images: np.ndarray,
        entities: Sequence[Sequence[str]],
        prompts: Sequence[str] | None = None,
        timestep: int | None = None,
        phrases: Sequence[Sequence[str]] | None = None,
        seed: int = 0,
        min_presence: float | None = None,
    ) -> Grounded:
        """Masks for words in given pictures, also real ones.

        images: uint8 (B,H,W,3) of the module's picture size. prompts: what the pictures show, the
        words named in it; by default "a photograph of a dog and a cat" made of the words.
        timestep: that the latents are noised to for the features, by default the one that the
        module was trained at. seed: of that noise, one for all, so that a picture's masks do not
        depend on its neighbours. min_presence: words of a lower presence score
        (`ml.grounding.presence`, whose MIN_PRESENCE is a good one) get an empty mask and
        probability 0, and the others are grounded as if they alone had been asked for, so that a
        long list may be asked for; by default every word is taken to be there. Raises ValueError
        for another size, no word for a picture, a word or phrase that is not in its prompt or
        asked for twice, and a prompt longer than the text encoder reads.
        """
        images = np.asarray(images)
        side = self.config.picture_size
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[1:] != (side, side, 3):
            raise ValueError(
                f"expected pictures uint8 (B,{side},{side},3), got {images.dtype} "
                f"{images.shape}; resize them to {side}x{side} first"
            )
        check_lengths(images=images, entities=entities)
        composed = prompts is None
        checked = self.asked(entities, prompts, phrases, composed and min_presence is not None)
        at: int = number(
            "timestep", self.config.feature_timestep if timestep is None else timestep, TIMESTEP
        )
        seed = number("seed", seed, SEED)
        if min_presence is not None:
            min_presence = number("min_presence", min_presence, PRESENCE)

        def segment(part: Sequence[tuple[np.ndarray, Asked]]) -> Grounded:
            pictures, seeds = np.stack([image for image, _ in part]), [seed] * len(part)
            latents = add_noise(self.pipe, encode_images(self.pipe, pictures), at, seeds)
            return self.ground_latents(
                latents,
                at,
                pictures,
                [own.prompt for _, own in part],
                [own.words for _, own in part],
                [own.phrases for _, own in part],
                seeds,
            )

        if min_presence is None:
            wanted = list(zip(images, checked, strict=True))
            return joined(images, [found for _, found in self.batches.run(wanted, segment)])
        scores = presence(
            self.pipe, images, [own.words for own in checked], seed=seed, batches=self.batches
        )
        there = [own >= min_presence for own in scores]
        kept = [
            (image, keep_words(own, here, composed))
            for image, own, here in zip(images, checked, there, strict=True)
            if here.any()
        ]
        refuse_long(self.pipe, (own.prompt for _, own in kept))
        found = [made for _, made in self.batches.run(kept, segment)]
        return scattered(joined(images, found), there, scores, side)

    def asked(
        self,
        entities: Sequence[Sequence[str]],
        prompts: Sequence[str] | None = None,
        phrases: Sequence[Sequence[str]] | None = None,
        shortened: bool = False,
    ) -> list[Asked]:
        """`ask`, and all texts within what the text encoder reads. shortened: the prompts are yet
        to be composed again of fewer words."""
        asked = ask(entities, prompts, phrases)
        refuse_long(self.pipe, (query_text(word) for own in asked for word in own.words))
        if not shortened:
            refuse_long(self.pipe, (own.prompt for own in asked))
        return asked

    def ground_latents(
        self,
        latents: Tensor,
        timestep: int,
        images: np.ndarray,
        prompts: Sequence[str],
        words: Sequence[Sequence[str]],
        phrases: Sequence[Sequence[str]],
        seeds: Sequence[int],
    ) -> Grounded:
        """`ground_features` of latents float32 (B,C,h,w) at the timestep."""
        features = denoiser_features(
            self.pipe, latents.to(device_of(self.pipe)), list(prompts), timestep
        )
        return self.ground_features(features, images, prompts, words, phrases, seeds)

    @torch.no_grad()
    def ground_features(
        self,
        features: dict[int, Tensor],
        images: np.ndarray,
        prompts: Sequence[str],
        words: Sequence[Sequence[str]],
        phrases: Sequence[Sequence[str]],
        seeds: Sequence[int],
    ) -> Grounded:
        """One batch: its features (`denoiser_features`), and evidence of the finished pictures
        uint8 (B,H,W,3). seeds: of the evidence's noise. Raises ValueError for a picture without
        words."""
        if not all(len(own) for own in words):
            raise ValueError(
                f"expected at least one word a picture, got {list(words)}; leave out "
                "pictures in which nothing is looked for"
            )
        evidence = None
        if self.config.competition:
            evidence = compute_evidence(
                self.pipe,
                list(images),
                prompts,
                phrases,
                self.config.evidence_timesteps,
                seeds,
                self.batches,
            )
        none = [np.zeros((len(own), 1, 1), bool) for own in words]  # no truth here
        batch = collate(
            features,
            [self.words(own) for own in words],
            evidence,
            none,
            [np.zeros(len(own), bool) for own in words],
            device_of(self.pipe),
        )
        logits = self.module(batch.features, batch.text, batch.valid, batch.evidence)
        masks = masks_from_logits(logits, self.config).cpu().numpy()
        soft = probabilities(logits, self.config).cpu().numpy()
        return Grounded(
            np.asarray(images),
            [m[: len(own)] for m, own in zip(masks, words, strict=True)],
            [p[: len(own)] for p, own in zip(soft, words, strict=True)],
        )

    def ground_samples(self, samples: Sequence[Sample]) -> Grounded:
        """One batch of stored pictures of one timestep, features from their stored latents."""
        return self.ground_latents(
            torch.from_numpy(np.stack([s.latent for s in samples])),
            samples[0].timestep,
            np.stack([s.image for s in samples]),
            [s.text for s in samples],
            [s.words for s in samples],
            [s.phrases for s in samples],
            [s.seed for s in samples],
        )
