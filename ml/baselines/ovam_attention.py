"""Cross-attention maps of words of other texts than the picture's own: OVAM (arXiv 2403.14291).

The maps are recorded beside the attention that makes the picture, which stays as it is
(`ml.diffusion.attention.recording`).
"""

from typing import Any

import torch
from diffusers.models.attention_processor import Attention

from ml.diffusion.attention import attention_shares, to_latent_size
from ml.diffusion.backbones.unet import split_heads


class AttributionAttention:
    """Sums the attention that pixels would pay to words of other texts than the picture's own.

    Undershoot is clamped once per layer size, not once per head as in DAAM: that makes a gradient
    through the maps affordable (`ml.baselines.ovam_query`).
    """

    joint = False

    def __init__(
        self,
        texts: torch.Tensor,
        weights: torch.Tensor,
        latent_size: tuple[int, int],
        counted: torch.Tensor | None = None,
    ):
        """texts: (B, n, L, D) as the U-Net is given them, each with its own softmax. weights:
        float32 (B, n, L), what a map takes of each token. counted: bool (B, n, L), the tokens in
        the softmax, at least one of each text; by default all."""
        self.token_weights, self.latent_size = weights, latent_size
        self.texts, self.counted = texts, counted
        self.calls = 0
        self._sums: dict[int, torch.Tensor] = {}  # pixels of a layer -> (B, pixels, n)

    def add(
        self, attention: Attention, pixels: torch.Tensor, text: torch.Tensor, *more: Any
    ) -> None:
        """As `Recorder.add`; the picture's own text plays no part."""
        query = split_heads(attention, attention.to_q(pixels[-len(self.texts) :]))
        key = split_heads(attention, attention.to_k(self.texts))
        shares = attention_shares(attention, query[:, None], key, self.counted)  # (B, n, N, L)
        words = (shares @ self.token_weights[..., None])[..., 0].transpose(1, 2)  # (B, N, n)
        known = self._sums.get(words.shape[1])
        self._sums[words.shape[1]] = words if known is None else known + words
        self.calls += 1

    def maps(self) -> torch.Tensor:
        """float32 (B, n, h, w), the sums of all layers brought to the latent's size."""
        return to_latent_size(self._sums, self.latent_size)

    def mean_maps(self) -> torch.Tensor:
        """float32 (B, n, h, w) in 0..1: the mean over layers and steps in place of the sum."""
        return (self.maps() / self.calls).clamp(max=1)  # bicubic enlarging overshoots
