"""Cross-attention maps of words while the U-Net runs: DAAM (arXiv 2210.04885).

The maps are recorded while the picture is made; the picture does not change.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.nn import functional

from ml.diffusion.pipeline import Pipeline
from ml.diffusion.tokens import all_positions, text_length


class Recorder(Protocol):
    """Observes cross-attentions while the U-Net runs."""

    def add(self, attention: Attention, pixels: torch.Tensor, text: torch.Tensor) -> None:
        """One layer of one step. pixels: (2B, N, D), text: (2B, L, D') of that layer, the
        conditional half last."""


class WordAttention:
    """Sums the attention that each word of each prompt gets, over layers and denoising steps.

    As DAAM's own code: the map of each layer, head and token, summed over the steps, is brought to
    the latent's size and its undershoot clamped on its own, before anything is averaged.
    """

    def __init__(self, token_weights: torch.Tensor, latent_size: tuple[int, int]):
        """token_weights: float32 (B, L, n), column j averages the tokens of word j."""
        named = token_weights.any(-1)  # (B, L)
        self.batch, most = len(named), int(named.sum(1).max())
        # Named tokens of each prompt, padded with others, whose weights are zero.
        self.tokens = named.int().sort(dim=1, descending=True, stable=True).indices[:, :most]
        self.token_weights = token_weights.gather(
            1, self.tokens[..., None].expand(-1, -1, token_weights.shape[-1])
        )  # (B, T, n)
        self.latent_size = latent_size
        self._sums: dict[Attention, torch.Tensor] = {}  # layer -> (B, heads, pixels, T)

    def add(self, attention: Attention, pixels: torch.Tensor, text: torch.Tensor) -> None:
        """One layer of one step. pixels: (B or 2B, N, D), text: (B or 2B, L, D') of that layer.

        Only the last B rows count: the conditional half of a guided batch.
        """
        query = split_heads(attention, attention.to_q(pixels[-self.batch :]))
        key = split_heads(attention, attention.to_k(text[-self.batch :]))
        shares = head_shares(attention, query, key)
        tokens = self.tokens[:, None, None].expand(*shares.shape[:3], -1)
        own = shares.gather(-1, tokens)
        known = self._sums.get(attention)
        self._sums[attention] = own if known is None else known + own

    def maps(self) -> torch.Tensor:
        """float32 (B, n, h, w): mean over heads and a word's tokens, sum over layers and steps."""
        total = 0
        for own in self._sums.values():  # (B, heads, pixels, T)
            grids = to_grid(own.flatten(0, 1), self.latent_size)  # (B * heads, T, h, w)
            heads = enlarge(grids, self.latent_size).unflatten(0, own.shape[:2])
            total = total + heads.mean(1)
        return torch.einsum("bthw,btn->bnhw", total, self.token_weights)


def split_heads(attention: Attention, projected: torch.Tensor) -> torch.Tensor:
    """Queries or keys (..., N, D) of a layer by its heads: (..., heads, N, D / heads)."""
    split: torch.Tensor = projected.unflatten(-1, (attention.heads, -1)).transpose(-3, -2)
    return split


def attention_shares(
    attention: Attention,
    query: torch.Tensor,
    key: torch.Tensor,
    counted: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax over the tokens, mean over heads: (..., heads, N, d) and (..., heads, L, d) to
    float32 (..., N, L). counted: bool (..., L), the tokens that take part, by default all."""
    return head_shares(attention, query, key, counted).mean(dim=-3)


def head_shares(
    attention: Attention,
    query: torch.Tensor,
    key: torch.Tensor,
    counted: torch.Tensor | None = None,
) -> torch.Tensor:
    """`attention_shares` of each head: float32 (..., heads, N, L)."""
    # In float32: SD 2's products overflow float16.
    scores = query.float() @ key.float().transpose(-2, -1) * attention.scale
    if counted is not None:
        scores = scores.masked_fill(~counted[..., None, None, :], -torch.inf)
    return scores.softmax(dim=-1)


def to_latent_size(sums: dict[int, torch.Tensor], latent_size: tuple[int, int]) -> torch.Tensor:
    """Sums over layers of as many pixels, {pixels: (B, pixels, n)}, to their sum (B, n, h, w)."""
    total = sum(enlarge(to_grid(own, latent_size), latent_size) for own in sums.values())
    assert isinstance(total, torch.Tensor), "no layer was recorded"
    return total


def to_grid(flat: torch.Tensor, latent_size: tuple[int, int]) -> torch.Tensor:
    """A layer's pixels in rows: (B, pixels, n) to (B, n, h', w')."""
    height, width = latent_size
    shrunk = round((height * width / flat.shape[1]) ** 0.5)
    grid: torch.Tensor = flat.transpose(1, 2).unflatten(
        2, (-(-height // shrunk), -(-width // shrunk))
    )
    return grid


def enlarge(grids: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Maps >= 0 (B, n, h', w') to (B, n, *size), bicubic and without undershoot, as in DAAM."""
    return functional.interpolate(grids, size, mode="bicubic", align_corners=False).clamp_(min=0)


class _Recording:
    """An attention processor that lets another one work while recorders observe."""

    def __init__(self, inner: Callable[..., torch.Tensor], recorders: Sequence[Recorder]) -> None:
        self.inner, self.recorders = inner, recorders

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        if encoder_hidden_states is not None:
            for recorder in self.recorders:
                recorder.add(attn, hidden_states, encoder_hidden_states)
        return self.inner(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


def token_weights(
    pipe: Pipeline, prompts: Sequence[str], words: Sequence[Sequence[str]]
) -> torch.Tensor:
    """float32 (B, L, n) on the pipeline's device, n the longest list of words.

    Column j of sample i averages the tokens of `words[i][j]` in its prompt, wherever it stands;
    columns past a sample's words are zero. Raises ValueError for a word that is not in its prompt.
    """
    most = max((len(own) for own in words), default=0)
    weights = torch.zeros(len(prompts), text_length(pipe), most)
    for i, (prompt, own) in enumerate(zip(prompts, words, strict=True)):
        for j, word in enumerate(own):
            positions = [p for place in all_positions(pipe, prompt, word, own) for p in place]
            weights[i, positions, j] = 1 / len(positions)
    return weights.to(pipe.device)


@contextmanager
def recording(unet: UNet2DConditionModel, *recorders: Recorder) -> Iterator[None]:
    """Within the block the recorders observe every cross-attention on the way down and up.

    Not the middle block's: DAAM's paper and code leave it out, its 8x8 maps (SD-v1) are coarse. A
    U-Net whose blocks somebody compiled runs uncompiled meanwhile: recorders keep a growing state,
    for which the compiler would compile each block again and again.
    """
    layers = [
        layer
        for block in [*unet.down_blocks, *unet.up_blocks]
        for layer in block.modules()
        if isinstance(layer, Attention) and layer.is_cross_attention
    ]
    before = [layer.processor for layer in layers]
    try:
        for layer, processor in zip(layers, before, strict=True):
            layer.processor = _Recording(processor, recorders)  # type: ignore[assignment]  # any callable
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for layer, processor in zip(layers, before, strict=True):
            layer.processor = processor
