"""What the module is given of a picture: U-Net features (cached up to a limit), evidence, words.

All of it comes from the frozen diffusion model; nothing here is learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ml.compute.batching import Batches
from ml.compute.weights import check_finite
from ml.diffusion.encoding import word_embeddings
from ml.diffusion.evidence import leave_one_out
from ml.diffusion.features import unet_features
from ml.diffusion.latents import encode_images
from ml.diffusion.pipeline import Pipeline
from ml.grounding.samples import Sample
from ml.store.shards import split

CACHE_BYTES = 1_500_000_000
"""Features kept in memory. 800 pictures of the micro size take 0.3 GB in float16; at full size
(65 MB each) some twenty fit and the rest are computed again, one U-Net pass each."""


@dataclass
class Batch:
    """Samples side by side, words padded to the longest; N >= 1. On the device of `text`."""

    features: dict[int, Tensor]  # {r: float (B,C_r,r,r)}
    text: Tensor  # float32 (B,N,D)
    valid: Tensor  # bool (B,N)
    evidence: Tensor | None  # float32 (B,N,E,h,w)
    masks: Tensor  # bool (B,N,H,W), False in padding
    present: Tensor  # bool (B,N), False in padding


def collate(
    features: dict[int, Tensor],
    texts: Sequence[Tensor],
    evidence: Sequence[np.ndarray] | None,
    masks: Sequence[np.ndarray],
    present: Sequence[np.ndarray],
    device: torch.device,
) -> Batch:
    """Pads the words. texts: B of float (n_i,D); evidence: B of (n_i,E,h,w); masks: B of bool
    (n_i,H,W); present: B of bool (n_i,)."""
    longest = max(len(t) for t in texts)

    def pad(arrays: Sequence[np.ndarray] | Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        tensors = [torch.as_tensor(a) for a in arrays]
        padded = torch.zeros(len(tensors), longest, *tensors[0].shape[1:], dtype=dtype)
        for row, tensor in zip(padded, tensors, strict=True):
            row[: len(tensor)] = tensor
        return padded.to(device)

    return Batch(
        features={r: f.to(device) for r, f in features.items()},
        text=pad([t.cpu() for t in texts], torch.float32),
        valid=pad([np.ones(len(t), bool) for t in texts], torch.bool),
        evidence=None if evidence is None else pad(evidence, torch.float32),
        masks=pad(masks, torch.bool),
        present=pad(present, torch.bool),
    )


class Words:
    """Text embeddings of words, each computed once."""

    def __init__(self, pipe: Pipeline) -> None:
        self.pipe = pipe
        self.known: dict[str, Tensor] = {}

    def __call__(self, words: Sequence[str]) -> Tensor:
        """float32 (n,D) on the CPU."""
        new = list(dict.fromkeys(w for w in words if w not in self.known))
        if new:
            self.known |= zip(new, word_embeddings(self.pipe, new).float().cpu(), strict=True)
        return torch.stack([self.known[w] for w in words])


class FeatureSource:
    """Batches of samples for training: features cached in float16, the rest always kept."""

    def __init__(
        self,
        pipe: Pipeline,
        samples: Sequence[Sample],
        evidence: Sequence[np.ndarray] | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """evidence: of each sample (n,E,h,w), from `compute_evidence`; None for `paper`."""
        self.pipe, self.samples, self.evidence = pipe, list(samples), evidence
        self.words = Words(pipe)
        self.cache: dict[int, dict[int, Tensor]] = {}  # on the CPU
        self.room = cache_bytes
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
        return collate(
            self._features(indices),
            [self.words(s.words) for s in chosen],
            None if self.evidence is None else [self.evidence[i] for i in indices],
            [s.masks for s in chosen],
            [s.present for s in chosen],
            self.pipe.device,
        )

    def _features(self, indices: Sequence[int]) -> dict[int, Tensor]:
        """{r: float16 (B,C_r,r,r)}, computed where they are not in the cache."""
        fresh: dict[int, dict[int, Tensor]] = {}
        missing = [i for i in dict.fromkeys(indices) if i not in self.cache]
        for timestep in sorted({self.samples[i].timestep for i in missing}):
            group = [i for i in missing if self.samples[i].timestep == timestep]
            for part, computed in self.batches.run(group, self._compute):
                for row, i in enumerate(part):
                    fresh[i] = {r: f[row] for r, f in computed.items()}
                    self._keep(i, fresh[i])
        rows = [fresh.get(i) or self.cache[i] for i in indices]
        device = self.pipe.device
        return {r: torch.stack([row[r].to(device) for row in rows]) for r in rows[0]}

    def _compute(self, part: Sequence[int]) -> dict[int, Tensor]:
        """One U-Net pass, {r: float16 (B,C_r,r,r)} on the pipeline's device."""
        chosen = [self.samples[i] for i in part]
        latents = torch.from_numpy(np.stack([s.latent for s in chosen]))
        features = unet_features(
            self.pipe, latents.to(self.pipe.device), [s.text for s in chosen], chosen[0].timestep
        )
        halves = {r: f.half() for r, f in features.items()}
        for r, half in halves.items():
            check_finite(
                half,
                f"the features at {r}x{r} pixels, kept in float16 for "
                f"diffusion.dtype {str(features[r].dtype).removeprefix('torch.')}",
                "take a diffusion.model whose features stay below 65,504; float32 or "
                "bfloat16 does not help",
            )
        return halves

    def _keep(self, index: int, features: dict[int, Tensor]) -> None:
        size = sum(f.nbytes for f in features.values())
        if size <= self.room:
            self.cache[index] = {r: f.to("cpu", copy=True) for r, f in features.items()}
            self.room -= size


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
    pictures, and passes of the U-Net, at once.
    """

    def contrast(part: Sequence[int]) -> list[np.ndarray]:
        latents = encode_images(pipe, np.stack([images[i] for i in part]))
        answered = leave_one_out(
            pipe,
            latents,
            [prompts[i] for i in part],
            [list(phrases[i]) for i in part],
            list(timesteps),
            [seeds[i] for i in part],
            batches.size,
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
