"""OVAM's optimised queries (arXiv 2403.14291, section 3.3): the embeddings of an attribution text,
fitted to the mask of one labelled picture. Not here: maps of a query (`ml.baselines.ovam`).
"""

from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn import functional as F

from ml.diffusion.attention import attention_shares, to_latent_size
from ml.diffusion.backbones.kinds import denoiser
from ml.diffusion.backbones.unet import split_heads
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.loading import latent_shape, picture_size
from ml.diffusion.pipeline import Pipeline
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import word_positions
from ml.words.phrases import query_text

ITERATIONS, LEARNING_RATE = 300, 0.01
"""Of the optimisation of a query (docs/ablations.md#ovams-optimised-queries)."""


class _Queries:
    """Keeps one picture's queries, every step of a layer together. A `Recorder`."""

    joint = False

    def __init__(self) -> None:
        self._steps: dict[Attention, list[Tensor]] = {}  # float32 (1, heads, N, d) of each step

    def add(self, attention: Attention, pixels: Tensor, text: Tensor, *more: Any) -> None:
        query = split_heads(attention, attention.to_q(pixels[-1:]))
        self._steps.setdefault(attention, []).append(query.float())

    def layers(self) -> dict[Attention, Tensor]:
        """attention -> float32 (steps, heads, N, d). Not to be called in inference mode."""
        return {layer: torch.cat(steps).clone() for layer, steps in self._steps.items()}


def start_query(pipe: Pipeline, word: str) -> Tensor:
    """float32 (2,D): the start token's and the word's embedding in its attribution text."""
    text = query_text(word)
    hidden = encode_prompts(pipe, [text]).hidden[0].float()
    return torch.stack([hidden[0], hidden[word_positions(pipe, text, word)].mean(dim=0)])


def optimise_query(
    pipe: Pipeline,
    prompt: str,
    seed: int,
    mask: np.ndarray,
    word: str,
    *,
    steps: int,
    guidance_scale: float,
    iterations: int = ITERATIONS,
    learning_rate: float = LEARNING_RATE,
) -> Tensor:
    """Background and object query float32 (2,D), CPU, fitted to one labelled picture.

    The picture of the prompt and seed is sampled once, its U-Net queries are kept, and the two
    embeddings move from `start_query` so that the object's map (`query_maps`), enlarged to the
    picture, meets the mask bool (H,W) under binary cross-entropy (OVAM, section 3.3; Adam here in
    place of its SGD, whose rates are those of another model). The best of all iterations is kept,
    as in OVAM's code. Raises ValueError for a mask of another shape, an empty or a full one, or no
    iteration.
    """
    size = picture_size(pipe)
    mask = np.asarray(mask)
    if mask.dtype != bool or mask.shape != size or mask.all() or not mask.any():
        raise ValueError(
            f"expected a mask bool {size} that is neither empty nor full, got "
            f"{mask.dtype} {mask.shape} with {np.count_nonzero(mask)} pixels"
        )
    if iterations < 1 or learning_rate <= 0:
        raise ValueError(
            f"expected at least 1 iteration and a learning rate above 0, got "
            f"{iterations} and {learning_rate}"
        )
    start = start_query(pipe, word)
    recorder = _Queries()
    sample(pipe, [prompt], [seed], steps=steps, guidance_scale=guidance_scale, recorders=[recorder])
    layers = recorder.layers()
    query = start.clone().requires_grad_()
    target = torch.from_numpy(mask).to(query.device, torch.float32)
    optimiser = torch.optim.Adam([query], lr=learning_rate)
    best, lowest = start, float("inf")
    for _ in range(iterations):
        found = _object_map(layers, query.to(denoiser(pipe).dtype), latent_shape(pipe)[1:])
        enlarged = F.interpolate(found, size=size, mode="bilinear", align_corners=False)[0, 0]
        loss = F.binary_cross_entropy(enlarged, target)
        if loss.item() < lowest:
            best, lowest = query.detach().clone(), loss.item()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return best.cpu()


def _object_map(
    layers: dict[Attention, Tensor], query: Tensor, latent_size: tuple[int, int]
) -> Tensor:
    """float32 (1,1,h,w) in 0..1 of query (2,D), as `mean_maps` has it, with a gradient."""
    sums: dict[int, Tensor] = {}
    for layer, pixels in layers.items():
        key = split_heads(layer, layer.to_k(query))
        shares = attention_shares(layer, pixels, key)[..., 1].mean(dim=0)  # (N,)
        sums[len(shares)] = sums.get(len(shares), 0) + shares[None, :, None]
    return (to_latent_size(sums, latent_size) / len(layers)).clamp(max=1)
