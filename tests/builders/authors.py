"""The authors' grounding module built a second time, from its description and torch's own layers;
its tensors have the names of theirs, so that its `state_dict()` is such a checkpoint.

BatchNorm of one picture, MultiheadAttention, a spectral norm of one step a picture. Nothing here is
shared with `ml.grounding`, whose variant `paper` must give the same outputs with the same weights.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = ("low", "mid", "high", "highest")


class Convolution(nn.Conv2d):
    """3x3, its weight divided by the largest singular value as far as power iteration knows it: one
    step a picture, from the vector that the last one left. `sv0` is noted, and never read."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1)
        self.register_buffer("u0", torch.randn(1, channels))
        self.register_buffer("sv0", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            right = F.normalize(self.u0 @ matrix, eps=1e-4)
            self.u0 = F.normalize(right @ matrix.T, eps=1e-4)
            self.sv0 = (right @ matrix.T @ self.u0.T).reshape(1)
        return F.conv2d(x, self.weight / self.sv0, self.bias, padding=1)

    def settle(self) -> tuple[Tensor, Tensor]:
        """Puts the vector where any number of pictures would bring it; both singular vectors."""
        left, _, right = torch.linalg.svd(self.weight.detach().flatten(1), full_matrices=False)
        self.u0 = left[:, :1].T.contiguous()
        return left[:, 0], right[0]


class Block(nn.Module):
    """Normalise, ReLU in place (so that the skip carries it), convolve, twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Convolution(channels), Convolution(channels)
        for name in ("stored_mean1", "stored_mean2"):
            self.register_buffer(name, torch.zeros(channels))
        for name in ("stored_var1", "stored_var2"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self._normalise(x, self.stored_mean1, self.stored_var1))
        hidden = self.conv1(x)
        return x + self.conv2(F.relu_(self._normalise(hidden, self.stored_mean2, self.stored_var2)))

    @staticmethod
    def _normalise(x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return F.batch_norm(x, mean, var, None, None, True, 0.1, 1e-4)  # training mode, always


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self_attn, self.multihead_attn = (
            nn.MultiheadAttention(width, heads, bias=False) for _ in range(2)
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.linear1, self.linear2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.self_attn(y, y, y, need_weights=False)[0]
        x = x + self.multihead_attn(self.norm2(x), memory, memory, need_weights=False)[0]
        return x + self.linear2(F.relu(self.linear1(self.norm3(x))))


def _listed(*layers: nn.Module) -> nn.Module:
    """The layers as `layers` of a module of their own, which calls none."""
    holder = nn.Module()
    holder.layers = nn.ModuleList(layers)
    return holder


class Authors(nn.Module):
    """channels: {resolution: channels}, four, ascending; widths: what is kept of each."""

    def __init__(
        self,
        channels: dict[int, int],
        widths: list[int],
        text: int,
        width: int,
        layers: int,
        heads: int,
        patch: int,
        size: int,
    ) -> None:
        super().__init__()
        self.sides, self.patch, self.size = list(channels), patch, size
        for level, c, kept in zip(LEVELS, channels.values(), widths, strict=True):
            conv = nn.Conv2d(c, kept, 1, bias=False)
            self.add_module(f"{level}_feature_conv", nn.Sequential(conv))
        for place, level in enumerate(LEVELS[1:], 2):
            self.add_module(f"{level}_feature_mix_conv", Block(sum(widths[:place])))
        self.to_k = nn.Linear(sum(widths) * patch**2, width, bias=False)
        self.to_q = nn.Linear(text, width, bias=False)
        # The misspelling is theirs.
        self.transfromer_decoder = _listed(*(Layer(width, heads) for _ in range(layers)))
        self.mlp = _listed(
            nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, sum(widths))
        )
        self.train()

    @property
    def reduce(self) -> list[nn.Conv2d]:
        return [getattr(self, f"{level}_feature_conv")[0] for level in LEVELS]

    @property
    def blocks(self) -> list[Block]:
        return [getattr(self, f"{level}_feature_mix_conv") for level in LEVELS[1:]]

    def forward(self, features: dict[int, Tensor], text: Tensor) -> Tensor:
        """One picture: {r: (1,C,r,r)} and (n,D) to logits (n,size,size)."""
        finest, fused = self.sides[-1], None
        for i, side in enumerate(self.sides):
            level = features[side]
            if side != finest:  # enlarged first and then convolved, as the description has it
                level = _resize(level, 2 * side)
            level = self.reduce[i](level)
            if fused is not None:
                level = torch.cat([_resize(fused, level.shape[-1]), level], dim=1)
                level = self.blocks[i - 1](level)
            fused = level
        tokens = F.unfold(fused, self.patch, stride=self.patch)[0].T  # unbatched
        queries, memory = self.to_q(text), self.to_k(tokens)
        for layer in self.transfromer_decoder.layers:
            queries = layer(queries, memory)
        first, second, third = self.mlp.layers
        embedded = third(F.relu(second(F.relu(first(queries)))))
        return torch.einsum("nc,chw->nhw", embedded, _resize(fused, self.size)[0])


def _resize(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x, size=side, mode="bilinear", align_corners=False)


def stirred(theirs: Authors) -> Authors:
    """The module itself, with biases and norms moved away from where they start."""
    for parameter in theirs.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return theirs


def full_size(sides: tuple[int, int, int, int] = (8, 16, 32, 64), size: int = 512) -> Authors:
    """Theirs for Stable Diffusion 1; sides: of maps with as many channels as those."""
    channels = dict(zip(sides, (15360, 14080, 8320, 5120), strict=True))
    return Authors(channels, [16, 32, 64, 128], 768, 512, 3, 8, 4, size)


def gathered(outputs: list[Tensor]) -> dict[int, Tensor]:
    """One picture's features in the order that theirs has them: of each block of the U-Net, whose
    output (2,C,r,r) has both guidance halves, first the one half and then the other."""
    groups: dict[int, list[Tensor]] = {}
    for output in outputs:
        _, channels, side, _ = output.shape
        groups.setdefault(side, []).append(output.reshape(1, 2 * channels, side, side))
    return {side: torch.cat(maps, dim=1) for side, maps in sorted(groups.items())}


def give_weights(theirs: Authors, ours: nn.Module) -> None:
    """Copies the weights of the second implementation into `ml.grounding.module`'s."""
    pairs = [(ours.to_k.weight, theirs.to_k.weight), (ours.to_q.weight, theirs.to_q.weight)]
    pairs += [(o.weight, t.weight) for o, t in zip(ours.encoder.reduce, theirs.reduce, strict=True)]
    convolutions = [
        (getattr(o, name), getattr(t, name))
        for name in ("conv1", "conv2")
        for o, t in zip(ours.encoder.blocks, theirs.blocks, strict=True)
    ]
    for o, t in convolutions:
        pairs += [(o.parametrizations.weight.original, t.weight), (o.bias, t.bias)]
    for o, t in zip(ours.layers, theirs.transfromer_decoder.layers, strict=True):
        for own, other in (
            (o.self_attention, t.self_attn),
            (o.cross_attention, t.multihead_attn),
        ):
            stacked = other.in_proj_weight.chunk(3)
            pairs += zip((own.q.weight, own.k.weight, own.v.weight), stacked, strict=True)
            pairs += [(own.out.weight, other.out_proj.weight)]
        for own, other in (
            (o.norm_self, t.norm1),
            (o.norm_cross, t.norm2),
            (o.norm_ffn, t.norm3),
            (o.ffn[0], t.linear1),
            (o.ffn[2], t.linear2),
        ):
            pairs += [(own.weight, other.weight), (own.bias, other.bias)]
    for o, t in zip(ours.mask_embedding[::2], theirs.mlp.layers, strict=True):
        pairs += zip(o.parameters(), t.parameters(), strict=True)
    with torch.no_grad():
        for own, other in pairs:
            assert own.shape == other.shape
            own.copy_(other)
        for o, t in convolutions:
            norm, vectors = o.parametrizations.weight[0], t.settle()
            norm._u.copy_(vectors[0])
            norm._v.copy_(vectors[1])
    assert len(pairs) == len(list(ours.parameters()))
