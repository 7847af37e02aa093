"""The fusion of words and picture: pre-norm transformer decoder layers and the query's seed.

Attention never leaves a sample, and padded words are never looked at. No positional encoding, as
in the paper.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SHARPNESS = 3.0
"""Power to which evidence is raised before pooling: half the peak then weighs an eighth."""

GAIN = 8.0
"""Weight of the evidence when the words of a picture compete for a place: the largest that was
tried, and the best for two unseen objects (docs/ablations.md#weight-of-the-evidence-prior)."""

FLOOR = 0.05
"""Share of its peak that every word's evidence has everywhere, so that noise decides little."""


class Attention(nn.Module):
    """Multi-head attention without biases, (B,N,D) over (B,M,D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, allowed: Tensor | None = None) -> Tensor:
        """allowed: bool (B,N,M), True where x may look; every row has a True."""
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B,heads,N or M,d)
            for layer, y in ((self.q, x), (self.k, memory), (self.v, memory))
        )
        mask = None if allowed is None else allowed[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class DecoderLayer(nn.Module):
    """Self-attention of the queries, cross-attention to the picture, feed-forward (4x, ReLU)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_ffn = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.ffn = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )

    def forward(self, queries: Tensor, tokens: Tensor, allowed: Tensor) -> Tensor:
        """queries (B,N,D), tokens (B,M,D), allowed bool (B,N,N) -> (B,N,D)."""
        normed = self.norm_self(queries)
        queries = queries + self.self_attention(normed, normed, allowed)
        queries = queries + self.cross_attention(self.norm_cross(queries), tokens)
        changed: Tensor = queries + self.ffn(self.norm_ffn(queries))
        return changed


def start_as_the_authors(layers: Sequence[DecoderLayer]) -> None:
    """All layers start as copies of the first, whose queries, keys and values have Xavier's bounds
    of one matrix for the three (torch's own MultiheadAttention)."""
    first = layers[0]
    for attention in (first.self_attention, first.cross_attention):
        bound = (6 / (4 * attention.q.in_features)) ** 0.5
        for projection in (attention.q, attention.k, attention.v):
            nn.init.uniform_(projection.weight, -bound, bound)
    for layer in layers[1:]:
        layer.load_state_dict(first.state_dict())


class EvidenceSeed(nn.Module):
    """The visual half of a query: the picture's tokens, pooled where it answers to the word."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, weights: Tensor) -> Tensor:
        """tokens (B,M,D), weights (B,N,M) that sum to 1 over M -> (B,N,D)."""
        seed: Tensor = self.project(self.norm(weights @ tokens))
        return seed


def by_peak(maps: Tensor) -> Tensor:
    """Maps >= 0 (...,h,w), each divided by its own maximum; zeros stay zeros."""
    return maps / maps.amax((-2, -1), keepdim=True).clamp(min=1e-12)


def pooling_weights(evidence: Tensor, valid: Tensor, side: int) -> Tensor:
    """Evidence maps, float >= 0 (B,N,E,h,w), to pooling weights (B,N,side*side) that sum to 1.

    Each map is divided by its own maximum, the maps of a word are averaged, words of one picture
    share each place in proportion to the square (so that what answers to two words seeds the one
    it answers to more), and the result is raised to SHARPNESS. A map of zeros pools evenly.
    """
    maps = by_peak(evidence.float().clamp(min=0))
    maps = (
        F.adaptive_avg_pool2d(maps.mean(2), side)
        if maps.shape[-1] > side
        else F.interpolate(maps.mean(2), size=(side, side), mode="bilinear", align_corners=False)
    )
    maps = maps * valid[:, :, None, None]
    squares = maps.square()
    maps = maps * squares / squares.sum(1, keepdim=True).clamp(min=1e-12)
    weights = by_peak(maps).pow(SHARPNESS).flatten(2) + 1e-8
    return weights / weights.sum(-1, keepdim=True)


def evidence_prior(evidence: Tensor, valid: Tensor, size: int) -> Tensor:
    """The evidence's prior on which word a place belongs to, in logits: float32 (B,N,size,size).

    GAIN times the logarithm of a word's share of the evidence at a place; each map counts by its
    own maximum, plus FLOOR. evidence: float >= 0 (B,N,E,h,w); valid: bool (B,N), padding gets -inf.
    """
    maps = by_peak(evidence.float().clamp(min=0)).mean(2)
    maps = F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=False)
    maps = (by_peak(maps) + FLOOR) * valid[:, :, None, None]
    return GAIN * (maps / maps.sum(1, keepdim=True)).log()


def apply_prior(words: Tensor, prior: Tensor) -> Tensor:
    """Logits of words (B,N,H,W), with a prior (B,N,H,W) on which of the words a place belongs to.

    The sum of the words' exponentials stays the same, so that the background keeps its places, and
    a word that is alone keeps its logits.
    """
    weighed = words + prior
    return weighed - weighed.logsumexp(1, keepdim=True) + words.logsumexp(1, keepdim=True)


def allowed_pairs(valid: Tensor) -> Tensor:
    """bool (B,N) -> (B,N,N): each query attends to the valid ones, a padded one also to itself."""
    own = torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    return valid[:, None, :] | own
