"""Cross-attention maps of words while the U-Net runs: DAAM (arXiv 2210.04885).

The maps are recorded beside the attention that makes the picture, which stays as it is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch.nn import functional

from ml.diffusion.checkpoint import Pipeline
from ml.diffusion.tokens import text_length, word_positions


class WordAttention:
    """Sums the attention that each word of each prompt gets, over layers and denoising steps."""

    def __init__(self, token_weights: torch.Tensor, latent_size: tuple[int, int]):
        """token_weights: float32 (B, L, n), column j averages the tokens of word j."""
        self.token_weights = token_weights
        self.latent_size = latent_size
        self._sums: dict[int, torch.Tensor] = {}  # pixels of a layer -> (B, pixels, n)

    def add(self, attention: Attention, pixels: torch.Tensor, text: torch.Tensor) -> None:
        """One layer of one step. pixels: (B or 2B, N, D), text: (B or 2B, L, D') of that layer.

        Only the last B rows count: the conditional half of a guided batch.
        """
        batch = len(self.token_weights)
        split = (batch, -1, attention.heads, attention.to_q.out_features // attention.heads)
        query = attention.to_q(pixels[-batch:]).view(split).transpose(1, 2)
        key = attention.to_k(text[-batch:]).view(split).transpose(1, 2)
        # In float32: SD 2's products overflow float16.
        scores = query.float() @ key.float().transpose(2, 3) * attention.scale  # (B, heads, N, L)
        shares = scores.softmax(dim=-1).mean(dim=1)
        words = shares @ self.token_weights  # (B, N, n)
        known = self._sums.get(words.shape[1])
        self._sums[words.shape[1]] = words if known is None else known + words

    def maps(self) -> torch.Tensor:
        """float32 (B, n, h, w), the sums of all layers brought to the latent's size."""
        height, width = self.latent_size
        total = 0
        for count, sums in self._sums.items():
            shrunk = round((height * width / count) ** 0.5)
            grid = sums.transpose(1, 2).unflatten(2, (-(-height // shrunk), -(-width // shrunk)))
            # Bicubic as in DAAM, whose code also clamps the undershoot. Linear but for that, so
            # once per layer size does what once per layer and step would.
            total = total + functional.interpolate(
                grid, self.latent_size, mode="bicubic", align_corners=False).clamp_(min=0)
        return total


class _Recording:
    """An attention processor that lets another one work and looks on."""

    def __init__(self, inner, recorder: WordAttention):
        self.inner, self.recorder = inner, recorder

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **kwargs):
        if encoder_hidden_states is not None:
            self.recorder.add(attn, hidden_states, encoder_hidden_states)
        return self.inner(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


def token_weights(
    pipe: Pipeline, prompts: Sequence[str], words: Sequence[Sequence[str]]
) -> torch.Tensor:
    """float32 (B, L, n) on the pipeline's device, n the longest list of words.

    Column j of sample i averages the tokens of `words[i][j]` in its prompt; columns past a
    sample's words are zero. Raises ValueError for a word that is not in its prompt.
    """
    most = max((len(own) for own in words), default=0)
    weights = torch.zeros(len(prompts), text_length(pipe), most)
    for i, (prompt, own) in enumerate(zip(prompts, words, strict=True)):
        for j, word in enumerate(own):
            positions = word_positions(pipe, prompt, word)
            weights[i, positions, j] = 1 / len(positions)
    return weights.to(pipe.device)


@contextmanager
def recording(unet: UNet2DConditionModel, recorder: WordAttention) -> Iterator[None]:
    """Within the block the recorder looks on at every cross-attention on the way down and up.

    Not at the middle block's: DAAM's paper and code leave it out, its 8x8 maps (SD-v1) are coarse.
    """
    layers = [layer for block in [*unet.down_blocks, *unet.up_blocks] for layer in block.modules()
              if isinstance(layer, Attention) and layer.is_cross_attention]
    before = [layer.processor for layer in layers]
    try:
        for layer, processor in zip(layers, before, strict=True):
            layer.processor = _Recording(processor, recorder)
        yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.processor = processor
