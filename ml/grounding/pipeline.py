"""Pictures with masks for words: a frozen diffusion model and a grounding module together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_type_hints

import numpy as np
import torch
from torch import Tensor

from ml.compute.batching import Batches
from ml.compute.devices import find_device
from ml.diffusion.checkpoint import Pipeline, find_checkpoint
from ml.diffusion.evidence import add_noise, encode_images
from ml.diffusion.features import unet_features
from ml.diffusion.loading import read_pipeline, set_scheduler
from ml.diffusion.sampling import sample
from ml.diffusion.schedulers import SCHEDULERS, TIMESTEPS
from ml.diffusion.tokens import text_limit
from ml.grounding.features import Words, collate, compute_evidence
from ml.grounding.module import GroundingModule, masks_from_logits, probabilities
from ml.grounding.presence import presence
from ml.grounding.prompting import Asked, ask, check_lengths, keep_words
from ml.grounding.samples import Sample
from ml.settings.ranges import Range, fit
from ml.settings.sections import DiffusionParams
from ml.store.files import atomic, say, write_json
from ml.store.reading import read_object
from ml.words.phrases import query_text

REFERENCE = "pipeline.json"
DRAWING = get_type_hints(DiffusionParams, include_extras=True)
SEED = Annotated[int, Range(0, 2**32 - 1)]
"""More is not read: torch's generator takes the low 32 bits."""
TIMESTEP = Annotated[int, Range(0, TIMESTEPS - 1)]
PRESENCE = Annotated[float, Range(-1e30, 1e30)]  # any that is finite
DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class GroundedOutput:
    """One entry a picture; n_i words each, in the order they were asked for."""

    images: np.ndarray  # uint8 (B,H,W,3) RGB
    masks: list[np.ndarray]  # bool (n_i,H,W)
    probabilities: list[np.ndarray]  # float32 (n_i,H,W) in 0..1; sums to <= 1 with competition
    presence: list[np.ndarray] | None = None  # float32 (n_i,), `ml.grounding.presence`, if asked


class GroundedDiffusionPipeline:
    """`pipe(prompt, entities=[[...]], seeds=[...])` draws and segments; `ground` segments."""

    def __init__(self, pipe: Pipeline, module: GroundingModule, batch_size: int = 16) -> None:
        """pipe: from `ml.diffusion.loading.load_pipeline`. The module moves to its device.

        batch_size: pictures at once, less when the device has not enough memory for them.
        """
        self.pipe = pipe
        self.module = module.to(pipe.device).eval()
        self.batches = Batches(batch_size)
        self.words = Words(pipe)

    @property
    def config(self):
        """The grounding module's GroundingConfig."""
        return self.module.config

    def __call__(
        self,
        prompts: str | Sequence[str],
        entities: Sequence[Sequence[str]],
        *,
        seeds: int | Sequence[int],
        steps: int,
        guidance_scale: float,
        phrases: Sequence[Sequence[str]] | None = None,
    ) -> GroundedOutput:
        """Draws a picture for each prompt and masks the words that `entities` lists for it.

        entities: words as they stand in the prompt ("dining table"), a list for each prompt.
        phrases: what to leave out for the contrast ("a red dining table"), as they stand in the
        prompt; by default the word and its article. A picture depends on its own prompt and seed
        alone. Raises ValueError when lengths differ, for a word or phrase that is not in its
        prompt or asked for twice, and for a prompt longer than the text encoder reads.
        """
        prompts, seeds = _as_list(prompts), _as_list(seeds)
        check_lengths(prompts=prompts, entities=entities, seeds=seeds)
        seeds = [_number("seeds", seed, SEED) for seed in seeds]
        steps = _number("steps", steps, DRAWING["steps"])
        guidance_scale = _number("guidance_scale", guidance_scale, DRAWING["guidance_scale"])
        said = self._asked(entities, prompts, phrases)

        def draw(part: Sequence[tuple]) -> GroundedOutput:
            texts, words, left_out, noise = zip(*part, strict=True)
            made = sample(self.pipe, texts, noise, steps=steps, guidance_scale=guidance_scale)
            return self.ground_latents(
                made.latents, made.timestep, made.images, texts, words, left_out, noise
            )

        asked = [(*own, noise) for own, noise in zip(said, seeds, strict=True)]
        found = [made for _, made in self.batches.run(asked, draw)]
        return _joined(np.concatenate([made.images for made in found]), found)

    def ground(
        self,
        images: np.ndarray,
        entities: Sequence[Sequence[str]],
        prompts: Sequence[str] | None = None,
        timestep: int | None = None,
        phrases: Sequence[Sequence[str]] | None = None,
        seed: int = 0,
        min_presence: float | None = None,
    ) -> GroundedOutput:
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
        said = self._asked(entities, prompts, phrases, composed and min_presence is not None)
        timestep = _number(
            "timestep", self.config.feature_timestep if timestep is None else timestep, TIMESTEP
        )
        seed = _number("seed", seed, SEED)
        if min_presence is not None:
            min_presence = _number("min_presence", min_presence, PRESENCE)

        def segment(part: Sequence[tuple]) -> GroundedOutput:
            own, texts, words, left_out = zip(*part, strict=True)
            pictures, seeds = np.stack(own), [seed] * len(part)
            latents = add_noise(self.pipe, encode_images(self.pipe, pictures), timestep, seeds)
            return self.ground_latents(latents, timestep, pictures, texts, words, left_out, seeds)

        if min_presence is None:
            asked = [(image, *own) for image, own in zip(images, said, strict=True)]
            return _joined(images, [found for _, found in self.batches.run(asked, segment)])
        scores = presence(
            self.pipe, images, [own.words for own in said], seed=seed, batches=self.batches
        )
        there = [own >= min_presence for own in scores]
        kept = [
            (image, *keep_words(own, here, composed))
            for image, own, here in zip(images, said, there, strict=True)
            if here.any()
        ]
        text_limit(self.pipe).refuse(prompt for _, prompt, *_ in kept)
        found = [made for _, made in self.batches.run(kept, segment)]
        return _scattered(_joined(images, found), there, scores, side)

    def _asked(self, entities, prompts, phrases, shortened: bool = False) -> list[Asked]:
        """`ask`, and all texts within what the text encoder reads. shortened: the prompts are yet
        to be composed again of fewer words."""
        said, limit = ask(entities, prompts, phrases), text_limit(self.pipe)
        limit.refuse(query_text(word) for own in said for word in own.words)
        if not shortened:
            limit.refuse(own.prompt for own in said)
        return said

    @torch.no_grad()
    def ground_latents(
        self,
        latents: Tensor,
        timestep: int,
        images: np.ndarray,
        prompts: Sequence[str],
        words: Sequence[Sequence[str]],
        phrases: Sequence[Sequence[str]],
        seeds: Sequence[int],
    ) -> GroundedOutput:
        """One batch: features from latents float32 (B,C,h,w) at the timestep, evidence from the
        finished pictures uint8 (B,H,W,3). seeds: of the evidence's noise. Raises ValueError for a
        picture without words."""
        if not all(len(own) for own in words):
            raise ValueError(
                f"expected at least one word a picture, got {list(words)}; leave out "
                "pictures in which nothing is looked for"
            )
        evidence = None
        if self.config.competition:
            evidence = compute_evidence(
                self.pipe,
                images,
                prompts,
                phrases,
                self.config.evidence_timesteps,
                seeds,
                self.batches,
            )
        none = [np.zeros((len(own), 1, 1), bool) for own in words]  # no truth here
        features = unet_features(self.pipe, latents.to(self.pipe.device), list(prompts), timestep)
        batch = collate(
            features,
            [self.words(own) for own in words],
            evidence,
            none,
            [np.zeros(len(own), bool) for own in words],
            self.pipe.device,
        )
        logits = self.module(batch.features, batch.text, batch.valid, batch.evidence)
        masks = masks_from_logits(logits, self.config).cpu().numpy()
        soft = probabilities(logits, self.config).cpu().numpy()
        return GroundedOutput(
            np.asarray(images),
            [m[: len(own)] for m, own in zip(masks, words, strict=True)],
            [p[: len(own)] for p, own in zip(soft, words, strict=True)],
        )

    def ground_samples(self, samples: Sequence[Sample]) -> GroundedOutput:
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

    def save_pretrained(
        self,
        folder: Path | str,
        diffusion: str | None = None,
        revision: str | None = None,
        variant: str | None = None,
    ) -> None:
        """Writes `grounding/`, and the diffusion model as `diffusion/` or, when a hub id (with
        its revision and variant) or an absolute folder is given for it, as a reference in
        pipeline.json, which also names the scheduler: a checkpoint may come with another one."""
        folder = Path(folder)
        self.module.save_pretrained(folder / "grounding")
        if diffusion is None:
            with atomic(folder / "diffusion") as temporary:
                self.pipe.save_pretrained(temporary, safe_serialization=True)
        write_json(
            folder / REFERENCE,
            {
                "diffusion": diffusion or "diffusion",
                "revision": revision,
                "variant": variant,
                "scheduler": type(self.pipe.scheduler).__name__,
                "dtype": str(self.pipe.dtype).removeprefix("torch."),
                "batch_size": self.batches.size,
            },
        )

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: str = "cpu"):
        """The pipeline that `save_pretrained` wrote, drawing with the scheduler and in the dtype
        that it had; float32 on a CPU.

        Raises ValueError when it is not there or damaged, or its diffusion model cannot be loaded.
        """
        folder = Path(folder)
        if not (folder / REFERENCE).is_file():
            raise ValueError(
                f"no {REFERENCE} in {folder}: expected a folder written by "
                "GroundedDiffusionPipeline.save_pretrained"
            )
        reference = read_object(folder / REFERENCE)
        _check_reference(folder / REFERENCE, reference)
        own, variant = folder / reference["diffusion"], reference.get("variant")
        found = find_checkpoint(
            str(own) if own.is_dir() else reference["diffusion"], reference.get("revision"), variant
        )
        place = find_device(device)
        dtype = "float32" if place.type == "cpu" else reference.get("dtype", "float32")
        pipe = read_pipeline(found, variant, getattr(torch, dtype))
        if (scheduler := reference.get("scheduler")) is not None:
            set_scheduler(pipe, scheduler)
        else:
            say(
                f"{folder / REFERENCE} names no scheduler, as older ones do: pictures are drawn "
                f"with the model's own, {type(pipe.scheduler).__name__}"
            )
        module = GroundingModule.from_pretrained(folder / "grounding")
        return cls(pipe.to(place), module, reference["batch_size"])


def _number(name: str, value: object, hint: object):
    """An argument as its annotation says (`ml.settings.ranges`), numpy's numbers too. ValueError
    else."""
    try:
        return fit(value.item() if isinstance(value, np.generic) else value, hint)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_reference(file: Path, said: dict) -> None:
    """Raises ValueError, naming file and field, for what `save_pretrained` does not write."""
    for name, fits, expected in (
        ("diffusion", lambda value: isinstance(value, str) and value, "a folder or hub id"),
        ("batch_size", lambda value: type(value) is int and value > 0, "a number above 0"),
        ("revision", lambda value: value is None or isinstance(value, str), "text or null"),
        ("variant", lambda value: value is None or isinstance(value, str), "text or null"),
        (
            "scheduler",
            lambda value: value in (None, *SCHEDULERS),
            f"one of {', '.join(SCHEDULERS)}",
        ),
        ("dtype", lambda value: value in (None, *DTYPES), f"one of {', '.join(DTYPES)}"),
    ):
        if not fits(said.get(name)):
            raise ValueError(f"{file}: {name}: expected {expected}, got {said.get(name)!r:.80}")


def _joined(images: np.ndarray, parts: Sequence[GroundedOutput]) -> GroundedOutput:
    return GroundedOutput(
        images,
        [mask for part in parts for mask in part.masks],
        [soft for part in parts for soft in part.probabilities],
    )


def _scattered(
    found: GroundedOutput, there: Sequence[np.ndarray], scores: list[np.ndarray], side: int
) -> GroundedOutput:
    """Masks of the words that are there among those of all, the others empty. found: an entry for
    each picture that has such a word."""
    filled: tuple[list, list] = ([], [])
    for every, own, kind in zip(
        filled, (found.masks, found.probabilities), (bool, np.float32), strict=True
    ):
        left = iter(own)
        for here in there:
            every.append(np.zeros((len(here), side, side), kind))
            if here.any():
                every[-1][here] = next(left)
    return GroundedOutput(found.images, *filled, presence=scores)


def _as_list(value) -> list:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
