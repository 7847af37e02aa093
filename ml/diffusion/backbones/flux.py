"""FLUX.1: a transformer of joint and then single blocks over packed latents, under rectified flow.

Guidance is distilled into the model (dev takes it as a number, schnell has none), so that a step
has no unconditional half.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

from ml.diffusion.backbones.mmdit import (
    T5_TOKENS,
    joint_keys,
    read_length,
    refuse_slicing,
    spread,
    text_shares,
    times,
    token_map,
)
from ml.diffusion.backbones.noising import Flow
from ml.diffusion.backbones.protocol import EncodedPrompts, Process, Tap, chosen
from ml.diffusion.backbones.unet import split_heads
from ml.diffusion.pipeline import Pipeline, device_of
from ml.settings.sections import DiffusionParams

PACKED = 2
"""Side of the square of latent pixels that is one token."""
SIDE = 128
"""Of the latent, 1024 pixels: FLUX's configuration names none, and its pipeline takes this."""
GUIDANCE = "distilled_guidance"
"""Attribute of a pipeline: the guidance that its passes are told."""
DEFAULT_GUIDANCE = 3.5
"""Where it has none: diffusers' own."""


class Flux:
    part = "transformer"
    halves = 1
    cross_attention = False
    process: Process = Flow()
    wide = True
    settings: tuple[str, ...] = (T5_TOKENS, GUIDANCE, "default_sample_size")

    def check(self, diffusion: DiffusionParams) -> None:
        self.process.check_name(diffusion.scheduler)
        refuse_slicing(diffusion)

    def configure(self, pipe: Pipeline, diffusion: DiffusionParams) -> None:
        setattr(pipe, T5_TOKENS, diffusion.t5_tokens)
        setattr(pipe, GUIDANCE, diffusion.guidance_scale)

    def check_guidance(self, pipe: Pipeline, scale: float) -> None:
        """Any of a model that is told it; of another (schnell) that of the profile alone."""
        if not 0 <= scale < math.inf:
            raise ValueError(f"guidance_scale: expected a number of 0 or more, got {scale}")
        known = getattr(pipe, GUIDANCE, scale)
        if self.told_guidance(pipe) is None and scale != known:
            raise ValueError(
                "guidance_scale: this model takes no guidance: leave it out of the call (expected "
                f"{known:g}, the number that it was loaded with, got {scale:g})"
            )

    def told_guidance(self, pipe: Pipeline) -> float | None:
        if not getattr(pipe, self.part).config["guidance_embeds"]:
            return None
        told: float = getattr(pipe, GUIDANCE, DEFAULT_GUIDANCE)
        return told

    def side(self, network: nn.Module) -> int:
        return SIDE

    def shape(self, pipe: Pipeline) -> tuple[int, int, int]:
        side: int = cast(Any, pipe).default_sample_size
        return getattr(pipe, self.part).config["in_channels"] // PACKED**2, side, side

    def taps(self, network: nn.Module, side: int, blocks: Sequence[int] | None = None) -> list[Tap]:
        """Of joint and single blocks together: the picture's tokens go through both."""
        flux = cast(Any, network)
        own = [*flux.transformer_blocks, *flux.single_transformer_blocks]
        taps = [Tap(block, flux.inner_dim, side // PACKED) for block in own]
        return chosen(taps, spread(len(taps)) if blocks is None else blocks)

    def feature_map(self, output: Any, tap: Tap) -> Tensor:
        _, pixels = output
        return token_map(pixels, tap.resolution)

    def encode(self, pipe: Pipeline, texts: list[str], size: tuple[int, int]) -> EncodedPrompts:
        hidden, pooled, _ = pipe.encode_prompt(
            prompt=texts,
            prompt_2=None,
            device=device_of(pipe),
            num_images_per_prompt=1,
            **read_length(pipe),
        )
        return EncodedPrompts(hidden, pooled)

    def word_states(self, pipe: Pipeline, hidden: Tensor) -> Tensor:
        """T5's tokens, all that there are: CLIP gives the pooled text alone."""
        return hidden

    def predict(
        self, pipe: Pipeline, latents: Tensor, timestep: int | Tensor, text: EncodedPrompts
    ) -> Tensor:
        network = getattr(pipe, self.part)
        batch, channels, height, width = latents.shape
        packed = cast(Any, pipe)._pack_latents(latents, batch, channels, height, width)
        guidance, told = None, self.told_guidance(pipe)
        if told is not None:
            guidance = torch.full((batch,), told, device=latents.device, dtype=torch.float32)
        (output,) = network(
            hidden_states=packed,
            # In the latents' dtype, as its pipeline has it drawn.
            timestep=times(timestep, latents).to(latents.dtype) / 1000,
            guidance=guidance,
            pooled_projections=text.pooled,
            encoder_hidden_states=text.hidden,
            txt_ids=torch.zeros(text.hidden.shape[1], 3).to(packed),
            img_ids=cast(Any, pipe)._prepare_latent_image_ids(
                batch, height // PACKED, width // PACKED, latents.device, latents.dtype
            ),
            return_dict=False,
        )
        return _unpacked(output, height, width)

    def seen(
        self, pipe: Pipeline, inputs: tuple[Any, ...], named: Mapping[str, Any]
    ) -> tuple[Tensor, float]:
        _, height, width = self.shape(pipe)
        latents = _unpacked(named["hidden_states"], height, width)
        return latents, 1000 * float(named["timestep"][0])

    def attentions(self, network: nn.Module) -> list[Any]:
        """Of the joint blocks; in the single ones picture and text are one sequence."""
        return [cast(Any, block).attn for block in self.joint_blocks(network)]

    def attention_shares(self, attention: Any, pixels: Tensor, text: Tensor, *more: Any) -> Tensor:
        query = attention.norm_q(split_heads(attention, attention.to_q(pixels)))
        key = joint_keys(attention, pixels, text)
        rotary = more[1] if len(more) > 1 else None  # after the mask
        if rotary is not None:
            length = text.shape[-2]  # the text stands first in the table
            own = tuple(table[length:] for table in rotary)
            query = cast(Tensor, apply_rotary_emb(query, own))
            first = tuple(table[:length] for table in rotary)
            parts: list[Any] = [
                apply_rotary_emb(key[..., :-length, :], own),
                apply_rotary_emb(key[..., -length:, :], first),
            ]
            key = torch.cat(parts, dim=-2)
        return text_shares(query, key, text.shape[-2])

    def joint_blocks(self, network: nn.Module) -> list[nn.Module]:
        """Not the single ones, in which a text has no weights of its own."""
        return list(cast(Any, network).transformer_blocks)

    def beside(
        self, arguments: Mapping[str, Any], rows: Sequence[int], text: Tensor
    ) -> dict[str, Any]:
        pixels, count = arguments["hidden_states"][rows], text.shape[1]
        # The table has the text's places first, all at the origin, as other texts' are.
        rotary = tuple(
            torch.cat([table[:1].expand(count, -1), table[-pixels.shape[1] :]])
            for table in arguments["image_rotary_emb"]
        )
        return {
            "hidden_states": pixels,
            "encoder_hidden_states": text,
            "temb": arguments["temb"][rows],
            "image_rotary_emb": rotary,
        }


def _unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """(B, h/2 * w/2, 4 C) to (B,C,h,w), the reverse of diffusers' packing."""
    grid = tokens.unflatten(1, (height // PACKED, width // PACKED))
    grid = grid.unflatten(-1, (-1, PACKED, PACKED)).permute(0, 3, 1, 4, 2, 5)
    found: Tensor = grid.flatten(4, 5).flatten(2, 3)
    return found
