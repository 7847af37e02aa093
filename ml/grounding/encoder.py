"""The visual encoder: U-Net features of all resolutions become one map, coarse to fine.

Every normalisation is over one picture, so that its map does not depend on the batch it is in. The
authors' BatchNorm of one picture is InstanceNorm.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm


def group_norm(channels: int, *, affine: bool) -> nn.GroupNorm:
    """GroupNorm of at most 8 groups."""
    return nn.GroupNorm(math.gcd(8, channels), channels, affine=affine)


def resize(x: Tensor, size: int) -> Tensor:
    """Bilinear, (B,C,h,w) -> (B,C,size,size); the same tensor when it has that size."""
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)


def own_norm(channels: int, kind: str) -> nn.Module:
    """Normalisation over one picture without weights: each channel's ("instance", as the authors')
    or that of 8 groups ("group")."""
    if kind == "instance":
        return nn.InstanceNorm2d(channels, eps=1e-4)
    return group_norm(channels, affine=False)


class SegBlock(nn.Module):
    """Residual block of two spectrally normalised 3x3 convolutions, (B,C,h,w) -> (B,C,h,w)."""

    def __init__(self, channels: int, normalisation: str, biased: bool) -> None:
        super().__init__()
        self.norm1 = own_norm(channels, normalisation)
        self.conv1 = spectral_norm(nn.Conv2d(channels, channels, 3, padding=1, bias=biased))
        self.norm2 = own_norm(channels, normalisation)
        self.conv2 = spectral_norm(nn.Conv2d(channels, channels, 3, padding=1, bias=biased))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(x))  # the skip carries this too, as in the authors' code
        out: Tensor = x + self.conv2(F.relu(self.norm2(self.conv1(x))))
        return out


class Standardise(nn.Module):
    """Brings each feature channel to mean 0 and deviation 1 over the training pictures.

    U-Net blocks differ in scale by a factor of ten and more. The figures are buffers, set once by
    `fit` (0 and 1 before), so a picture's features do not depend on its batch.
    """

    mean: Tensor  # float32 (C,)
    std: Tensor  # float32 (C,)

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def fit(self, x: Tensor, before: int) -> None:
        """Takes mean and deviation from features (B,C,h,w), on top of `before` pictures' own."""
        x = x.to(self.mean.device, torch.float32)
        mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
        if before:
            pixels = x.shape[-2] * x.shape[-1]
            old, new = before * pixels, len(x) * pixels
            shift = mean - self.mean
            squares = (
                self.std.square() * (old - 1)
                + std.square() * (new - 1)
                + shift.square() * old * new / (old + new)
            )
            mean = self.mean + shift * new / (old + new)
            std = (squares / (old + new - 1)).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean[:, None, None]) / self.std[:, None, None]


class VisualEncoder(nn.Module):
    """Features by resolution, {r: (B,C_r,r,r)}, to one map (B,sum(widths),R,R), R the finest.

    Each resolution is cut to its width by a 1x1 convolution and, but for the finest, doubled;
    then from coarse to fine: upsample, append the next, SegBlock. lone_block: a SegBlock for
    features of one resolution, which have nothing to append.
    """

    def __init__(
        self,
        feature_channels: Mapping[int, int],
        widths: Sequence[int],
        normalisation: str,
        biased: bool,
        standardised: bool,
        lone_block: bool,
    ) -> None:
        super().__init__()
        self.resolutions, self.channels = tuple(feature_channels), tuple(feature_channels.values())
        self.standardised = standardised
        self.scales = nn.ModuleList(
            Standardise(c) if standardised else nn.Identity() for c in feature_channels.values()
        )
        self.reduce = nn.ModuleList(
            nn.Conv2d(c, w, 1, bias=False)
            for c, w in zip(feature_channels.values(), widths, strict=True)
        )
        self.first = 0 if lone_block else 1  # level that ends with a block, as all after it do
        self.blocks = nn.ModuleList(
            SegBlock(sum(widths[: i + 1]), normalisation, biased)
            for i in range(self.first, len(widths))
        )
        self.out_channels = sum(widths)

    def fit_scales(self, batches: Iterable[Mapping[int, Tensor]]) -> None:
        """Sets the standardisation from features of some training pictures, batch by batch; does
        nothing, and reads none, where there is no standardisation."""
        if not self.standardised:
            return
        scales = [scale for scale in self.scales if isinstance(scale, Standardise)]
        before = 0
        for features in batches:
            for resolution, scale in zip(self.resolutions, scales, strict=True):
                scale.fit(features[resolution], before)
            before += len(features[self.resolutions[0]])
        for scale in scales:
            scale.std.clamp_(min=1e-3)

    def pictures_within(self, limit: int) -> int:
        """How many pictures' features take at most `limit` bytes in float32, at least 1."""
        one = sum(4 * c * r**2 for r, c in zip(self.resolutions, self.channels, strict=True))
        return max(1, limit // one)

    def forward(self, features: Mapping[int, Tensor]) -> Tensor:
        finest = self.resolutions[-1]
        fused: Tensor | None = None
        for i, resolution in enumerate(self.resolutions):
            # 1x1 convolution and bilinear resize commute, and reduced first it is cheap
            level: Tensor = self.reduce[i](self.scales[i](features[resolution].float()))
            level = resize(level, min(2 * resolution, finest))
            if fused is not None:
                level = torch.cat([resize(fused, level.shape[-1]), level], dim=1)
            fused = self.blocks[i - self.first](level) if i >= self.first else level
        assert fused is not None, "a config has at least one resolution"
        return fused


class LearnedUpsampling(nn.Module):
    """Doubles a map n times by convolution and pixel shuffle, (B,C,r,r) -> (B,out,r*2^n,r*2^n)."""

    def __init__(self, channels: int, out: int, doublings: int) -> None:
        super().__init__()
        steps = []
        for left in reversed(range(doublings)):
            wide = out * 2 if left else out
            steps += [
                nn.Conv2d(channels, 4 * wide, 3, padding=1),
                nn.PixelShuffle(2),
                group_norm(wide, affine=True),
                nn.SiLU(),
            ]
            channels = wide
        steps += [nn.Conv2d(channels, out, 3, padding=1)]
        self.steps = nn.Sequential(*steps)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.steps(x)
        return out
