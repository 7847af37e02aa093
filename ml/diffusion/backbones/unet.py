"""Stable Diffusion 1, 2 and XL: a U-Net with cross-attention, under DDPM's noise."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from ml.diffusion.backbones.noising import Ddpm
from ml.diffusion.backbones.protocol import EncodedPrompts, Process, Tap, chosen
from ml.diffusion.pipeline import Pipeline, device_of
from ml.settings.sections import DiffusionParams


class UNet:
    part = "unet"
    halves = 2
    cross_attention = True
    process: Process = Ddpm()
    wide = False
    settings: tuple[str, ...] = ()

    def check(self, diffusion: DiffusionParams) -> None:
        self.process.check_name(diffusion.scheduler)
        if diffusion.t5_tokens is not None:
            raise ValueError(
                "diffusion.t5_tokens: expected null, because Stable Diffusion 1, 2 and XL have no "
                f"T5, got {diffusion.t5_tokens}; leave it out of the profile"
            )

    def configure(self, pipe: Pipeline, diffusion: DiffusionParams) -> None:
        """channels_last, faster on a CPU (docs/ablations.md#memory-format-of-the-u-net)."""
        unet: nn.Module = getattr(pipe, self.part)  # torch's `to` has types, diffusers' has none
        unet.to(memory_format=torch.channels_last)

    def check_guidance(self, pipe: Pipeline, scale: float) -> None:
        refuse_one_half(scale)

    def told_guidance(self, pipe: Pipeline) -> float | None:
        return None

    def side(self, network: nn.Module) -> int:
        side: int | list[int] = cast(Any, network).config["sample_size"]
        return side if isinstance(side, int) else side[0]  # both are equal: `unet_fields`

    def shape(self, pipe: Pipeline) -> tuple[int, int, int]:
        network = getattr(pipe, self.part)
        return network.config["in_channels"], self.side(network), self.side(network)

    def taps(self, network: nn.Module, side: int, blocks: Sequence[int] | None = None) -> list[Tap]:
        """25 places in SD-v1 and SD 2, 19 in SDXL (method.md 1.1).

        Every input block (the first convolution, each resnet with its attention, each
        downsampler), the middle block, every output block (each resnet with its attention; the
        last of a level with the upsampler that follows it).
        """
        unet = cast(UNet2DConditionModel, network)
        taps = [Tap(unet.conv_in, unet.conv_in.out_channels, side)]
        down: Iterable[Any] = unet.down_blocks
        up: Iterable[Any] = unet.up_blocks
        for block in down:
            taps += [Tap(module, channels, side) for module, channels in _layers(block)]
            for downsampler in block.downsamplers or ():
                side = -(-side // 2)  # a stride-2 convolution rounds up
                taps.append(Tap(downsampler, downsampler.out_channels, side))
        if unet.mid_block is not None:  # small distilled models have none
            taps.append(Tap(unet.mid_block, unet.mid_block.resnets[-1].out_channels, side))
        sides = [tap.resolution for tap in taps if tap.module is not unet.mid_block]
        for block in up:
            levels = [Tap(module, channels, side) for module, channels in _layers(block)]
            sides = sides[: -len(levels)]  # each consumes one output of the way down
            for upsampler in block.upsamplers or ():
                side = sides[-1]
                levels[-1] = Tap(upsampler, upsampler.out_channels, side)
            taps += levels
        return taps if blocks is None else chosen(taps, blocks)

    def feature_map(self, output: Any, tap: Tap) -> Tensor:
        found: Tensor = output[0] if isinstance(output, tuple) else output
        return found

    def encode(self, pipe: Pipeline, texts: list[str], size: tuple[int, int]) -> EncodedPrompts:
        """Of SDXL with the pooled text and the sizes, and zeros for an empty text."""
        encoded = pipe.encode_prompt(
            texts,
            device=device_of(pipe),
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        if getattr(pipe, "text_encoder_2", None) is None:
            return EncodedPrompts(encoded[0])
        hidden, _, pooled, _ = encoded
        if pipe.config.force_zeros_for_empty_prompt:
            filled = torch.tensor([text != "" for text in texts]).to(hidden)
            hidden, pooled = hidden * filled[:, None, None], pooled * filled[:, None]
        height, width = size
        # The size that was asked for, nothing cropped, the same size: what the pipeline passes.
        sizes = torch.tensor([[height, width, 0, 0, height, width]]).to(hidden)
        return EncodedPrompts(hidden, pooled, sizes.expand(len(texts), -1))

    def word_states(self, pipe: Pipeline, hidden: Tensor) -> Tensor:
        return hidden

    def predict(
        self, pipe: Pipeline, latents: Tensor, timestep: int | Tensor, text: EncodedPrompts
    ) -> Tensor:
        (output,) = getattr(pipe, self.part)(
            latents, timestep, return_dict=False, **arguments(text)
        )
        return cast(Tensor, output)

    def seen(
        self, pipe: Pipeline, inputs: tuple[Any, ...], named: Mapping[str, Any]
    ) -> tuple[Tensor, float]:
        return inputs[0], float(inputs[1])

    def attentions(self, network: nn.Module) -> list[Any]:
        """Every cross-attention on the way down and up. Not the middle block's: DAAM's paper and
        code leave it out, its 8x8 maps (SD-v1) are coarse."""
        unet = cast(UNet2DConditionModel, network)
        return [
            layer
            for block in [*unet.down_blocks, *unet.up_blocks]
            for layer in block.modules()
            if isinstance(layer, Attention) and layer.is_cross_attention
        ]

    def attention_shares(self, attention: Any, pixels: Tensor, text: Tensor, *more: Any) -> Tensor:
        query = split_heads(attention, attention.to_q(pixels))
        key = split_heads(attention, attention.to_k(text))
        return head_shares(attention, query, key)

    def joint_blocks(self, network: nn.Module) -> list[nn.Module]:
        return []

    def beside(
        self, arguments: Mapping[str, Any], rows: Sequence[int], text: Tensor
    ) -> dict[str, Any]:
        raise ValueError("a U-Net has no block in which picture and text attend to each other")


def refuse_one_half(scale: float) -> None:
    """Raises ValueError for a guidance scale without an unconditional half, or not finite."""
    if not 1 < scale < math.inf:
        raise ValueError(
            "guidance_scale: expected a number above 1, because both halves of the guided batch "
            f"are needed, got {scale}"
        )


def arguments(text: EncodedPrompts) -> dict[str, Any]:
    """What a call of a U-Net is given of texts."""
    if text.pooled is None:
        return {"encoder_hidden_states": text.hidden}
    return {
        "encoder_hidden_states": text.hidden,
        "added_cond_kwargs": {"text_embeds": text.pooled, "time_ids": text.time_ids},
    }


def _layers(block: Any) -> list[tuple[nn.Module, int]]:
    """The resnets of a block of diffusers, or the attentions after them, with their channels."""
    attentions = getattr(block, "attentions", None) or block.resnets
    return [
        (attention, resnet.out_channels)
        for resnet, attention in zip(block.resnets, attentions, strict=True)
    ]


def split_heads(attention: Any, projected: Tensor) -> Tensor:
    """Queries or keys (..., N, D) of a layer by its heads: (..., heads, N, D / heads)."""
    split: Tensor = projected.unflatten(-1, (attention.heads, -1)).transpose(-3, -2)
    return split


def head_shares(
    attention: Any, query: Tensor, key: Tensor, counted: Tensor | None = None
) -> Tensor:
    """Softmax over the tokens: (..., heads, N, d) and (..., heads, L, d) to float32
    (..., heads, N, L). counted: bool (..., L), the tokens that take part, by default all."""
    # In float32: SD 2's products overflow float16.
    scores = query.float() @ key.float().transpose(-2, -1) * attention.scale
    if counted is not None:
        scores = scores.masked_fill(~counted[..., None, None, :], -torch.inf)
    shares: Tensor = scores.softmax(dim=-1)
    return shares
