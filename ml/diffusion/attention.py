"""Cross-attention maps of words while the U-Net runs: DAAM (arXiv 2210.04885).

The maps are recorded while the picture is made; the picture does not change.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch.nn import functional

from ml.diffusion.backbones.kinds import backbone_of, denoiser
from ml.diffusion.backbones.protocol import Backbone
from ml.diffusion.backbones.unet import head_shares
from ml.diffusion.pipeline import Pipeline, device_of
from ml.diffusion.tokens import all_positions, text_length
from ml.diffusion.turns import turn


class Recorder(Protocol):
    """Observes attentions to the text while the denoiser runs."""

    joint: bool
    """Whether it understands attention to picture and text together, which transformers have."""

    def add(self, attention: Any, pixels: torch.Tensor, text: torch.Tensor, *more: Any) -> None:
        """One layer of one step. pixels: (halves * B, N, D), text: (halves * B, L, D') of that
        layer, the conditional half last; more: what else its processor was given."""


class WordAttention:
    """Sums the attention that each word of each prompt gets, over layers and denoising steps.

    As DAAM's own code: the map of each layer, head and token, summed over the steps, is brought to
    the latent's size and its undershoot clamped on its own, before anything is averaged.
    """

    joint = True

    def __init__(
        self, token_weights: torch.Tensor, latent_size: tuple[int, int], backbone: Backbone
    ):
        """token_weights: float32 (B, L, n), column j averages the tokens of word j."""
        named = token_weights.any(-1)  # (B, L)
        self.batch, most = len(named), int(named.sum(1).max())
        # Named tokens of each prompt, padded with others, whose weights are zero.
        self.tokens = named.int().sort(dim=1, descending=True, stable=True).indices[:, :most]
        self.token_weights = token_weights.gather(
            1, self.tokens[..., None].expand(-1, -1, token_weights.shape[-1])
        )  # (B, T, n)
        self.latent_size, self.backbone = latent_size, backbone
        self._sums: dict[Any, torch.Tensor] = {}  # layer -> (B, heads, pixels, T)

    def add(self, attention: Any, pixels: torch.Tensor, text: torch.Tensor, *more: Any) -> None:
        """One layer of one step, as `Recorder.add`; the last B rows count."""
        shares = self.backbone.attention_shares(
            attention, pixels[-self.batch :], text[-self.batch :], *more
        )
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


def attention_shares(
    attention: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    counted: torch.Tensor | None = None,
) -> torch.Tensor:
    """Softmax over the tokens, mean over heads: (..., heads, N, d) and (..., heads, L, d) to
    float32 (..., N, L). counted: bool (..., L), the tokens that take part, by default all."""
    return head_shares(attention, query, key, counted).mean(dim=-3)


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
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        if encoder_hidden_states is not None:
            for recorder in self.recorders:
                recorder.add(attn, hidden_states, encoder_hidden_states, *args)
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
    return weights.to(device_of(pipe))


@contextmanager
def recording(pipe: Pipeline, *recorders: Recorder) -> Iterator[None]:
    """Within the block the recorders observe the layers in which the picture attends to the text.

    A denoiser whose blocks somebody compiled runs uncompiled meanwhile: recorders keep a growing
    state, for which the compiler would compile each block again and again. Raises ValueError for a
    recorder of cross-attention and a denoiser that has none.
    """
    backbone = backbone_of(pipe)
    if strange := [own for own in recorders if not (backbone.cross_attention or own.joint)]:
        raise ValueError(
            f"{type(strange[0]).__name__} reads the cross-attention of a U-Net, and "
            f"{type(pipe).__name__} has a transformer without it: take DAAM's maps or "
            "ConceptAttention's, or a Stable Diffusion 1, 2 or XL"
        )
    with turn(pipe):
        layers = backbone.attentions(denoiser(pipe))
        before = [layer.processor for layer in layers]
        try:
            for layer, processor in zip(layers, before, strict=True):
                layer.processor = _Recording(processor, recorders)
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            for layer, processor in zip(layers, before, strict=True):
                layer.processor = processor
