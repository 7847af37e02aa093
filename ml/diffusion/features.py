"""What the denoiser sees: the outputs of its blocks, by resolution (method.md 1.1).

Which blocks: `ml.diffusion.backbones`. Not here: what is learned from these features (the grounding
model).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ml.diffusion.backbones.kinds import backbone_of, backbone_of_network, denoiser
from ml.diffusion.backbones.protocol import Tap
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.loading import latent_shape
from ml.diffusion.pipeline import Pipeline, device_of
from ml.diffusion.turns import in_turn, turn


def feature_taps(
    network: nn.Module, side: int | None = None, blocks: Sequence[int] | None = None
) -> list[Tap]:
    """Where features are taken, in the order of the network. side: of the latent, by default that
    it was trained at. blocks: places among all blocks, by default those that its kind takes; raises
    ValueError for one that there is not."""
    backbone = backbone_of_network(network)
    return backbone.taps(network, backbone.side(network) if side is None else side, blocks)


def feature_channels(
    network: nn.Module, side: int | None = None, blocks: Sequence[int] | None = None
) -> dict[int, int]:
    """Channels of `denoiser_features` by resolution, ascending, of both guidance halves where there
    are two; no forward."""
    halves, channels = backbone_of_network(network).halves, dict[int, int]()
    for tap in feature_taps(network, side, blocks):
        channels[tap.resolution] = channels.get(tap.resolution, 0) + halves * tap.channels
    return dict(sorted(channels.items()))


def channels_of(pipe: Pipeline, blocks: Sequence[int] | None = None) -> dict[int, int]:
    """`feature_channels` of a pipeline's own denoiser and picture size."""
    return feature_channels(denoiser(pipe), latent_shape(pipe)[-1], blocks)


@in_turn
@torch.no_grad()
def denoiser_features(
    pipe: Pipeline,
    latents: torch.Tensor,
    prompts: Sequence[str],
    timestep: int,
    blocks: Sequence[int] | None = None,
) -> dict[int, torch.Tensor]:
    """Features of latents (B,C,h,w), as the denoiser is given them at a timestep of 0..999.

    One pass over the guided batch. Returns {r: (B, halves * C_r, r, r)} ascending in r, on the
    pipeline's device and in its dtype: for each sample the unconditional half's channels, then
    its own conditional half's, both in the order of the network; the latter alone where guidance
    is distilled. blocks: as `feature_taps`. A sample's features do not depend on its neighbours.
    """
    if len(prompts) != len(latents):
        raise ValueError(f"expected one prompt a latent, got {len(prompts)} for {len(latents)}")
    backbone, network = backbone_of(pipe), denoiser(pipe)
    empty = (backbone.halves - 1) * len(latents)
    latents = latents.to(device_of(pipe), network.dtype)
    with tapped(pipe, blocks) as outputs:
        text = encode_prompts(pipe, [""] * empty + list(prompts))
        backbone.predict(pipe, torch.cat([latents] * backbone.halves), timestep, text)
    return joined(outputs, backbone.halves)


@contextmanager
def tapped(
    pipe: Pipeline, blocks: Sequence[int] | None = None
) -> Iterator[dict[int, torch.Tensor]]:
    """Within the block every pass of the denoiser leaves its taps' maps here, by their place in
    `feature_taps`; a further pass replaces them."""
    outputs: dict[int, torch.Tensor] = {}
    backbone = backbone_of(pipe)

    def keep(index: int, tap: Tap) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            outputs[index] = backbone.feature_map(output, tap)

        return hook

    taps = feature_taps(denoiser(pipe), latent_shape(pipe)[-1], blocks)
    with turn(pipe):
        handles = [tap.module.register_forward_hook(keep(i, tap)) for i, tap in enumerate(taps)]
        try:
            yield outputs
        finally:
            for handle in handles:
                handle.remove()


def joined(outputs: dict[int, torch.Tensor], halves: int) -> dict[int, torch.Tensor]:
    """`denoiser_features` of what `tapped` kept of a pass over `halves` texts a picture; empties
    `outputs`."""
    batch = len(outputs[0]) // halves
    groups: dict[int, list[torch.Tensor]] = {}
    for index in sorted(outputs):
        output = outputs.pop(index)
        groups.setdefault(output.shape[-2], []).append(output)
    return {
        side: torch.cat(
            [m[half * batch : (half + 1) * batch] for half in range(halves) for m in maps], dim=1
        )
        for side, maps in sorted(groups.items())
    }
