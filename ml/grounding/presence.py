"""Whether a word is in a picture at all: how much naming it reduces the error of the predicted
noise.

Kin to the diffusion classifier (arXiv 2303.16203), but place by place: the error of the frozen
model's prediction under "a photograph of" minus its error under "a photograph of a dog", where the
dog explains a place better than every other word that is asked for. No training. Not here: masks,
and what is done with a word that is absent (`pipeline`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F

from ml.compute.batching import Batches
from ml.diffusion.evidence import prediction_errors
from ml.diffusion.latents import encode_images
from ml.diffusion.pipeline import Pipeline
from ml.words.left_out import NOTHING
from ml.words.phrases import query_text

TIMESTEPS = (150, 250, 350, 450, 550, 650)
"""Of the noise that the error is measured under, one sample of noise at each."""

WINDOW = 3
"""Side in latent pixels of the window that gains are averaged over before words compete."""

MIN_PRESENCE = 0.01
"""A good threshold for the micro model: it loses few of the words that are there, and keeps few of
the absent ones. Another model needs its own, because the unit is its latents'. How it was found,
and what it does less well (absent words without a rival that is there): `docs/ablations.md`.
"""


def presence(
    pipe: Pipeline,
    images: np.ndarray,
    words: Sequence[Sequence[str]],
    *,
    seed: int = 0,
    timesteps: Sequence[int] = TIMESTEPS,
    batches: Batches | None = None,
) -> list[np.ndarray]:
    """How surely each word is in its picture: float32 (n_i,) >= 0 for each, higher is surer.

    images: uint8 (B,H,W,3), finished. words: n_i for each; a word's score depends on the others
    that are asked for, never on other pictures. Unit: `compete`. seed: of the noise, one for all.
    (n_i + 1) U-Net passes a timestep. batches: pictures, and passes, at once. Raises ValueError
    for lists of unequal length.
    """
    return [
        compete(own)
        for own in gains(pipe, images, words, seed=seed, timesteps=timesteps, batches=batches)
    ]


def gains(
    pipe: Pipeline,
    images: np.ndarray,
    words: Sequence[Sequence[str]],
    *,
    seed: int = 0,
    timesteps: Sequence[int] = TIMESTEPS,
    batches: Batches | None = None,
) -> list[np.ndarray]:
    """What naming each word alone takes off the error, place by place: float32 (n_i,h,w).

    In squared units of v, summed over channels, mean over timesteps; below 0 where the word makes
    it worse. Arguments and errors as `presence`; a word's map does not depend on other words.
    """
    if len(images) != len(words):
        raise ValueError(
            f"expected a list of words a picture, got {len(words)} lists for {len(images)} pictures"
        )
    batches = batches or Batches(16)
    texts = [[NOTHING, *map(query_text, own)] for own in words]

    def measure(part: Sequence[int]) -> list[torch.Tensor]:
        clean = encode_images(pipe, np.stack([images[i] for i in part]))
        return prediction_errors(
            pipe, clean, [texts[i] for i in part], timesteps, [seed] * len(part), batches.size
        )

    parts = batches.run(range(len(images)), measure)
    mean = [own.mean(1).cpu().numpy() for _, errors in parts for own in errors]
    return [own[:1] - own[1:] for own in mean]


def compete(maps: np.ndarray) -> np.ndarray:
    """Scores float32 (n,) of gains (n,h,w): how much more a word explains than any other.

    Gains are averaged over WINDOW; at each place a word's lead over the best of the other words
    and over naming nothing (0) counts where it has one. Mean over all places: squared units of v a
    latent pixel.
    """
    if not len(maps):
        return np.zeros(0, np.float32)
    smooth = F.avg_pool2d(torch.as_tensor(maps)[:, None], WINDOW, 1, WINDOW // 2)[:, 0].numpy()
    rivals = [np.delete(smooth, i, 0).max(0, initial=0) for i in range(len(smooth))]
    leads: np.ndarray = np.maximum(smooth - np.stack(rivals), 0).mean((1, 2)).astype(np.float32)
    return leads
