"""What the module is given of a picture: U-Net features (cached up to a limit), evidence, words.

All of it comes from the frozen diffusion model; nothing here is learned.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ml.compute.batching import Batches
from ml.compute.devices import on_device
from ml.compute.weights import stop_for_numbers
from ml.diffusion.backbones.kinds import backbone_of
from ml.diffusion.encoding import word_embeddings
from ml.diffusion.evidence import leave_one_out
from ml.diffusion.features import denoiser_features
from ml.diffusion.latents import encode_images
from ml.diffusion.loading import unwatched
from ml.diffusion.pipeline import Pipeline, device_of
from ml.grounding.learned import folded
from ml.grounding.samples import Sample
from ml.images.run_lengths import decode_rle
from ml.store.shards import split
from ml.words.spans import fold

CACHE_BYTES = 1_500_000_000
"""Features kept in memory on a CPU. 800 pictures of the micro size take 0.3 GB in float16; at full
size (65 MB each) some twenty fit and the rest are computed again, one pass each."""
CACHE_SHARE = 0.15
"""Of a GPU's free memory instead, for each of training and validation: the trainings on a card of
8 GB still get the batches they ask for."""

ADVICE = (
    "take a diffusion.model whose features stay below 65,504; float32 or bfloat16 does not help"
)
WIDE_ADVICE = (
    "a transformer's features may leave float16: set diffusion.dtype to bfloat16 or float32, and "
    "if it is, take another diffusion.model"
)
"""What to do about features that are not finite, of a U-Net and of a transformer."""


@dataclass
class Batch:
    """Samples side by side, words padded to the longest; N >= 1. On the device of `text`."""

    features: dict[int, Tensor]  # {r: float (B,C_r,r,r)}
    text: Tensor  # float32 (B,N,D)
    valid: Tensor  # bool (B,N)
    evidence: Tensor | None  # float32 (B,N,E,h,w)
    masks: Tensor  # bool (B,N,H,W), False in padding
    present: Tensor  # bool (B,N), False in padding
    ignored: Tensor | None = None  # bool (B,H,W), pixels that nothing is learned from; None: none


def collate(
    features: dict[int, Tensor],
    texts: Sequence[Tensor],
    evidence: Sequence[np.ndarray] | None,
    masks: Sequence[np.ndarray],
    present: Sequence[np.ndarray],
    device: torch.device,
    ignored: np.ndarray | None = None,
) -> Batch:
    """Pads the words. texts: B of float (n_i,D); evidence: B of (n_i,E,h,w); masks: B of bool
    (n_i,H,W); present: B of bool (n_i,); ignored: bool (B,H,W)."""
    longest = max(len(t) for t in texts)

    def pad(arrays: Sequence[np.ndarray] | Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        tensors = [torch.as_tensor(a) for a in arrays]
        padded = torch.zeros(len(tensors), longest, *tensors[0].shape[1:], dtype=dtype)
        for row, tensor in zip(padded, tensors, strict=True):
            row[: len(tensor)] = tensor
        return on_device(padded, device)

    return Batch(
        features={r: on_device(f, device) for r, f in features.items()},
        text=pad([t.cpu() for t in texts], torch.float32),
        valid=pad([np.ones(len(t), bool) for t in texts], torch.bool),
        evidence=None if evidence is None else pad(evidence, torch.float32),
        masks=pad(masks, torch.bool),
        present=pad(present, torch.bool),
        ignored=None if ignored is None else on_device(torch.from_numpy(ignored), device),
    )


class Words:
    """Text embeddings of words, each computed once; of a word with a learned query, that query."""

    def __init__(self, pipe: Pipeline, learned: Mapping[str, Tensor] | None = None) -> None:
        """learned: word -> query float (D,), for the word in whatever case it is asked for."""
        self.pipe = pipe
        self.learned = folded(learned or {})
        self.known: dict[str, Tensor] = {}

    def __call__(self, words: Sequence[str]) -> Tensor:
        """float32 (n,D) on the CPU."""
        new = list(dict.fromkeys(w for w in words if w not in self.known))
        if new:
            own = word_embeddings(self.pipe, new).float().cpu()
            for word, embedding in zip(new, own, strict=True):
                self.known[word] = self.learned.get(fold(word), embedding)
        return torch.stack([self.known[w] for w in words])


def ignored_pixels(samples: Sequence[Sample]) -> np.ndarray | None:
    """bool (B,H,W), pixels of samples that nothing is learned from; None where there are none."""
    if not any(s.ignored for s in samples):
        return None
    none = np.zeros(samples[0].size, bool)
    return np.stack([decode_rle(s.ignored) if s.ignored else none for s in samples])


def cache_room(device: torch.device) -> int:
    """Bytes of features that are kept on a device."""
    if device.type != "cuda":
        return CACHE_BYTES
    return int(CACHE_SHARE * torch.cuda.mem_get_info(device)[0])


class FeatureSource:
    """Batches of samples for training: features cached as `_compute` leaves them, the rest always
    kept."""

    def __init__(
        self,
        pipe: Pipeline,
        samples: Sequence[Sample],
        evidence: Sequence[np.ndarray] | None = None,
        cache_bytes: int | None = None,
        words: Words | None = None,
        blocks: Sequence[int] | None = None,
    ) -> None:
        """evidence: of each sample (n,E,h,w), from `compute_evidence`; None for `paper`.
        cache_bytes: of features that are kept, by default `cache_room`. words: with learned
        queries. blocks: of the denoiser, whose features are taken, as
        `ml.diffusion.features.feature_taps`."""
        self.blocks = blocks
        self.pipe, self.samples, self.evidence = pipe, list(samples), evidence
        self.words = words or Words(pipe)
        self.cache: dict[int, dict[int, Tensor]] = {}  # on the pipeline's device
        self.room = cache_room(device_of(pipe)) if cache_bytes is None else cache_bytes
        self._made: list[tuple[str, Tensor]] = []  # of the last pass: what, and whether finite
        self.batches = Batches(max(1, len(self.samples)))  # as many as asked for, while they fit

    def __len__(self) -> int:
        return len(self.samples)

    def counts(self, index: int) -> tuple[int, int]:
        """Words of a sample, and how many of them have an accepted mask."""
        sample = self.samples[index]
        return len(sample.words), int(sample.present.sum())

    def batch(self, indices: Sequence[int]) -> Batch:
        """The samples at these places, on the pipeline's device."""
        chosen = [self.samples[i] for i in indices]
        masks = [s.masks for s in chosen]  # decoded while a GPU is at the step before
        return collate(
            self._features(indices),
            [self.words(s.words) for s in chosen],
            None if self.evidence is None else [self.evidence[i] for i in indices],
            masks,
            [s.present for s in chosen],
            device_of(self.pipe),
            ignored_pixels(chosen),
        )

    def _features(self, indices: Sequence[int]) -> dict[int, Tensor]:
        """{r: (B,C_r,r,r)} as of `_compute`, which makes those that are not in the cache."""
        fresh: dict[int, dict[int, Tensor]] = {}
        missing = [i for i in dict.fromkeys(indices) if i not in self.cache]
        for timestep in sorted({self.samples[i].timestep for i in missing}):
            group = [i for i in missing if self.samples[i].timestep == timestep]
            for part, computed in self.batches.run(group, self._compute):
                for row, i in enumerate(part):
                    fresh[i] = {r: f[row] for r, f in computed.items()}
                    self._keep(i, fresh[i])
        rows = [fresh.get(i) or self.cache[i] for i in indices]
        return {r: torch.stack([row[r] for row in rows]) for r in rows[0]}

    def _compute(self, part: Sequence[int]) -> dict[int, Tensor]:
        """One pass, {r: (B,C_r,r,r)} on the pipeline's device: a U-Net's in float16, a
        transformer's, which may leave its range, in the dtype of the pass."""
        chosen = [self.samples[i] for i in part]
        latents = torch.from_numpy(np.stack([s.latent for s in chosen]))
        on_gpu = device_of(self.pipe).type == "cuda"
        with unwatched() if on_gpu else nullcontext():
            features = denoiser_features(
                self.pipe,
                on_device(latents, device_of(self.pipe)),
                [s.text for s in chosen],
                chosen[0].timestep,
                self.blocks,
            )
        wide = backbone_of(self.pipe).wide
        kept = features if wide else {r: f.half() for r, f in features.items()}
        before, self._made = (
            self._made,
            [
                (
                    f"{r}x{r} pixels, kept in {_said(own.dtype)} for diffusion.dtype "
                    f"{_said(features[r].dtype)}",
                    torch.isfinite(own).all(),
                )
                for r, own in kept.items()
            ],
        )
        # A GPU is asked for the pass before, which it has made by now, instead of waited for; what
        # is wrong with the last pass shows in the loss.
        refuse_infinite(before if on_gpu else self._made, WIDE_ADVICE if wide else ADVICE)
        return kept

    def _keep(self, index: int, features: dict[int, Tensor]) -> None:
        size = sum(f.nbytes for f in features.values())
        if size <= self.room:
            self.cache[index] = {r: f.clone() for r, f in features.items()}  # not its batch's too
            self.room -= size


def _said(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def refuse_infinite(made: Sequence[tuple[str, Tensor]], advice: str) -> None:
    """Raises NotFinite for the first of these features that are not finite, read at once. advice:
    what to do about it."""
    sound = torch.stack([finite for _, finite in made]).tolist() if made else []
    for (what, _), finite in zip(made, sound, strict=True):
        if not finite:
            stop_for_numbers(f"the features at {what}", advice)


def compute_evidence(
    pipe: Pipeline,
    images: Sequence[np.ndarray] | np.ndarray,
    prompts: Sequence[str],
    phrases: Sequence[Sequence[str]],
    timesteps: Sequence[int],
    seeds: Sequence[int],
    batches: Batches,
) -> list[np.ndarray]:
    """Leave-one-out contrast of every phrase: a float32 (n_i,E,h,w) for each picture.

    images: uint8 (H,W,3) each, finished; they are encoded and noised to the timesteps, so that a
    generated picture goes the same way as a given one. seeds: of the noise, one each. batches:
    pictures at once; a GPU is given twice as many passes of the U-Net at once, which is what it
    was given when as many pictures were drawn.
    """
    # a CPU gains nothing, and its bits would move
    halves = 2 if device_of(pipe).type == "cuda" else 1

    def contrast(part: Sequence[int]) -> list[np.ndarray]:
        latents = encode_images(pipe, np.stack([images[i] for i in part]))
        answered = leave_one_out(
            pipe,
            latents,
            [prompts[i] for i in part],
            [list(phrases[i]) for i in part],
            list(timesteps),
            [seeds[i] for i in part],
            halves * batches.size,
        )
        return [torch.as_tensor(m).float().cpu().numpy() for m in answered]

    parts = batches.run(range(len(prompts)), contrast)
    return [maps for _, found in parts for maps in found]


def sample_evidence(
    pipe: Pipeline,
    samples: Sequence[Sample],
    timesteps: Sequence[int],
    batch_size: int,
) -> list[np.ndarray]:
    """`compute_evidence` of generated samples, with a progress bar."""
    maps: list[np.ndarray] = []
    batches = Batches(batch_size)
    with tqdm(total=len(samples), desc="evidence", unit="picture") as bar:
        for part in split(samples, batch_size):
            maps += compute_evidence(
                pipe,
                [s.image for s in part],
                [s.text for s in part],
                [s.phrases for s in part],
                timesteps,
                [s.seed for s in part],
                batches,
            )
            bar.update(len(part))
    return maps
