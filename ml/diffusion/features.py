"""What the U-Net sees: the output of every one of its blocks, by resolution (method.md 1.1).

Not here: what is learned from these features (the grounding model).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from ml.diffusion.encoding import encode_prompts
from ml.diffusion.pipeline import Pipeline


@dataclass(frozen=True)
class Tap:
    module: nn.Module  # whose output is taken
    channels: int
    resolution: int  # side of the map, latent pixels


def feature_taps(unet: UNet2DConditionModel) -> list[Tap]:
    """Where features are taken, in the order of the network: 25 places in SD-v1 and
    SD 2, 19 in SDXL.

    Every input block (the first convolution, each resnet with its attention, each downsampler),
    the middle block, every output block (each resnet with its attention; the last of a level
    with the upsampler that follows it).
    """
    size = unet.config["sample_size"]
    side = size if isinstance(size, int) else size[0]
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
    return taps


def _layers(block: Any) -> list[tuple[nn.Module, int]]:
    """The resnets of a block of diffusers, or the attentions after them, with their channels."""
    attentions = getattr(block, "attentions", None) or block.resnets
    return [
        (attention, resnet.out_channels)
        for resnet, attention in zip(block.resnets, attentions, strict=True)
    ]


def feature_channels(unet: UNet2DConditionModel) -> dict[int, int]:
    """Channels of `unet_features` (both guidance halves) by resolution, ascending; no forward."""
    channels: dict[int, int] = {}
    for tap in feature_taps(unet):
        channels[tap.resolution] = channels.get(tap.resolution, 0) + 2 * tap.channels
    return dict(sorted(channels.items()))


@torch.no_grad()
def unet_features(
    pipe: Pipeline,
    latents: torch.Tensor,
    prompts: Sequence[str],
    timestep: int,
) -> dict[int, torch.Tensor]:
    """Features of latents (B,C,h,w), as the U-Net is given them at a timestep of 0..999.

    One pass over the guided batch. Returns {r: (B, 2*C_r, r, r)} ascending in r, on the
    pipeline's device and in its dtype: for each sample the unconditional half's channels, then
    its own conditional half's, both in the order of the network. A sample's features do not
    depend on its neighbours.
    """
    if len(prompts) != len(latents):
        raise ValueError(f"expected one prompt a latent, got {len(prompts)} for {len(latents)}")
    batch = len(latents)
    latents = latents.to(pipe.device, pipe.unet.dtype)
    with tapped(pipe.unet) as outputs:
        pipe.unet(
            torch.cat([latents, latents]),
            timestep,
            return_dict=False,
            **encode_prompts(pipe, [""] * batch + list(prompts)).kwargs,
        )
    return joined(outputs)


@contextmanager
def tapped(unet: UNet2DConditionModel) -> Iterator[dict[int, torch.Tensor]]:
    """Within the block every pass of the U-Net leaves its taps' outputs here, by their place in
    `feature_taps`; a further pass replaces them."""
    outputs: dict[int, torch.Tensor] = {}

    def keep(index: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[index] = output[0] if isinstance(output, tuple) else output

        return hook

    taps = feature_taps(unet)
    handles = [tap.module.register_forward_hook(keep(i)) for i, tap in enumerate(taps)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def joined(outputs: dict[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    """`unet_features` of what `tapped` kept of a pass over a guided batch; empties `outputs`."""
    batch = len(outputs[0]) // 2
    groups: dict[int, list[torch.Tensor]] = {}
    for index in sorted(outputs):
        output = outputs.pop(index)
        groups.setdefault(output.shape[-2], []).append(output)
    return {
        side: torch.cat([m[:batch] for m in maps] + [m[batch:] for m in maps], dim=1)
        for side, maps in sorted(groups.items())
    }
