"""Stable Diffusion 3 and 3.5: a transformer over picture and text together (MM-DiT, arXiv
2403.03206), under rectified flow."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ml.diffusion.backbones.noising import Flow
from ml.diffusion.backbones.protocol import EncodedPrompts, Process, Tap, chosen
from ml.diffusion.backbones.unet import refuse_one_half, split_heads
from ml.diffusion.pipeline import Pipeline, device_of
from ml.settings.sections import DiffusionParams

TAPS = 4
"""Blocks whose picture tokens are features, evenly over the depth, the last block among them. On
the micro model the first block alone grounds worst, and two to five of its five together differ by
less than trainings do (docs/results.md, the study `backbones`)."""
T5_TOKENS = "t5_tokens"
"""Attribute of a pipeline: how many tokens T5 reads, or None for diffusers' own number."""


class MMDiT:
    part = "transformer"
    halves = 2
    cross_attention = False
    process: Process = Flow()
    wide = True
    settings: tuple[str, ...] = (T5_TOKENS,)

    def check(self, diffusion: DiffusionParams) -> None:
        self.process.check_name(diffusion.scheduler)
        refuse_slicing(diffusion)

    def configure(self, pipe: Pipeline, diffusion: DiffusionParams) -> None:
        setattr(pipe, T5_TOKENS, diffusion.t5_tokens)

    def check_guidance(self, pipe: Pipeline, scale: float) -> None:
        refuse_one_half(scale)

    def told_guidance(self, pipe: Pipeline) -> float | None:
        return None

    def side(self, network: nn.Module) -> int:
        side: int = cast(Any, network).config["sample_size"]
        return side

    def shape(self, pipe: Pipeline) -> tuple[int, int, int]:
        network = getattr(pipe, self.part)
        return network.config["in_channels"], self.side(network), self.side(network)

    def taps(self, network: nn.Module, side: int, blocks: Sequence[int] | None = None) -> list[Tap]:
        config = cast(Any, network).config
        width = config["num_attention_heads"] * config["attention_head_dim"]
        own = self.joint_blocks(network)
        taps = [Tap(block, width, side // config["patch_size"]) for block in own]
        return chosen(taps, spread(len(taps)) if blocks is None else blocks)

    def feature_map(self, output: Any, tap: Tap) -> Tensor:
        _, pixels = output  # the text's tokens, and the picture's row by row
        return token_map(pixels, tap.resolution)

    def encode(self, pipe: Pipeline, texts: list[str], size: tuple[int, int]) -> EncodedPrompts:
        hidden, _, pooled, _ = pipe.encode_prompt(
            prompt=texts,
            prompt_2=None,
            prompt_3=None,
            device=device_of(pipe),
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
            **read_length(pipe),
        )
        return EncodedPrompts(hidden, pooled)

    def word_states(self, pipe: Pipeline, hidden: Tensor) -> Tensor:
        """CLIP's tokens and channels, which stand before T5's."""
        clip: Any = pipe
        width = sum(
            encoder.config.hidden_size for encoder in (clip.text_encoder, clip.text_encoder_2)
        )
        return hidden[:, : clip.tokenizer_max_length, :width]

    def predict(
        self, pipe: Pipeline, latents: Tensor, timestep: int | Tensor, text: EncodedPrompts
    ) -> Tensor:
        (output,) = getattr(pipe, self.part)(
            hidden_states=latents,
            timestep=times(timestep, latents),
            encoder_hidden_states=text.hidden,
            pooled_projections=text.pooled,
            return_dict=False,
        )
        return cast(Tensor, output)

    def seen(
        self, pipe: Pipeline, inputs: tuple[Any, ...], named: Mapping[str, Any]
    ) -> tuple[Tensor, float]:
        return named["hidden_states"], float(named["timestep"][0])

    def attentions(self, network: nn.Module) -> list[Any]:
        """The joint attention of every block."""
        return [cast(Any, block).attn for block in self.joint_blocks(network)]

    def attention_shares(self, attention: Any, pixels: Tensor, text: Tensor, *more: Any) -> Tensor:
        """What the picture's tokens give the text's, among all tokens."""
        query, key = (
            split_heads(attention, attention.to_q(pixels)),
            joint_keys(attention, pixels, text),
        )
        if attention.norm_q is not None:
            query = attention.norm_q(query)
        return text_shares(query, key, text.shape[-2])

    def joint_blocks(self, network: nn.Module) -> list[nn.Module]:
        return list(cast(Any, network).transformer_blocks)

    def beside(
        self, arguments: Mapping[str, Any], rows: Sequence[int], text: Tensor
    ) -> dict[str, Any]:
        return {
            "hidden_states": arguments["hidden_states"][rows],
            "encoder_hidden_states": text,
            "temb": arguments["temb"][rows],
        }


def refuse_slicing(diffusion: DiffusionParams) -> None:
    """Raises ValueError for `diffusion.attention_slicing`, which diffusers does to U-Nets alone."""
    if diffusion.attention_slicing:
        raise ValueError(
            "diffusion.attention_slicing: expected false, because the attention of a diffusion "
            "transformer is not sliced, got true; to save memory set diffusion.quantise to int8 or "
            "diffusion.offload to model"
        )


def read_length(pipe: Pipeline) -> dict[str, int]:
    """The argument of `encode_prompt` that says so."""
    asked = getattr(pipe, T5_TOKENS, None)
    return {} if asked is None else {"max_sequence_length": asked}


def spread(count: int, taps: int = TAPS) -> list[int]:
    """Places of so many of `count` blocks, evenly, the last one among them; all where there are
    fewer."""
    taps = min(taps, count)
    return [(place + 1) * count // taps - 1 for place in range(taps)]


def token_map(tokens: Tensor, side: int) -> Tensor:
    """Tokens (B,N,D) row by row as a map (B,D,side,side)."""
    found: Tensor = tokens.transpose(1, 2).unflatten(2, (side, side))
    return found


def times(timestep: int | Tensor, latents: Tensor) -> Tensor:
    """float32 (B,): one timestep a latent, as Stable Diffusion 3's pipeline gives them. bfloat16
    has steps of 2 from 256 on and of 4 from 512."""
    return torch.as_tensor(timestep, device=latents.device).float().expand(len(latents))


def joint_keys(attention: Any, pixels: Tensor, text: Tensor) -> Tensor:
    """Keys of the picture's tokens and then the text's: (B,heads,N + L,d)."""
    own = split_heads(attention, attention.to_k(pixels))
    added = split_heads(attention, attention.add_k_proj(text))
    if attention.norm_k is not None:
        own = attention.norm_k(own)
    if attention.norm_added_k is not None:
        added = attention.norm_added_k(added)
    return torch.cat([own, added], dim=-2)


def text_shares(query: Tensor, key: Tensor, length: int) -> Tensor:
    """Attention (B,heads,N,length) of queries (B,heads,N,d) on the last `length` of all keys
    (B,heads,N + L,d), float32; one head after the other, whose tables are large."""
    scale = query.shape[-1] ** -0.5
    found = [
        (own.float() @ other.float().transpose(-2, -1) * scale).softmax(-1)[..., -length:]
        for own, other in zip(query.unbind(1), key.unbind(1), strict=True)
    ]
    return torch.stack(found, dim=1)
