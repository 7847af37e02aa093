"""The authors' grounding module built a second time, from its description and torch's own layers.

BatchNorm2d in training mode, MultiheadAttention, torch's older spectral norm; one picture at a
time. Nothing here is shared with `ml.grounding`, whose variant `paper` must give the same outputs
with the same weights.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Normalise, ReLU in place (so that the skip carries it), convolve, twice."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (
            nn.BatchNorm2d(channels, eps=1e-4, affine=False) for _ in range(2)
        )
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.norm1(x))
        hidden = self._convolve(self.conv1, x)
        return x + self._convolve(self.conv2, F.relu_(self.norm2(hidden)))

    @staticmethod
    def _convolve(conv: nn.Conv2d, x: Tensor) -> Tensor:
        largest = torch.linalg.matrix_norm(conv.weight.flatten(1), 2)  # what power iteration finds
        return F.conv2d(x, conv.weight / largest, conv.bias, padding=1)


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.own, self.cross = (nn.MultiheadAttention(width, heads, bias=False) for _ in range(2))
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.own(y, y, y, need_weights=False)[0]
        x = x + self.cross(self.norm2(x), memory, memory, need_weights=False)[0]
        return x + self.narrow(F.relu(self.wide(self.norm3(x))))


class Authors(nn.Module):
    """channels: {resolution: channels}, ascending; widths: what is kept of each."""

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
        self.reduce = nn.ModuleList(
            nn.Conv2d(c, w, 1, bias=False) for c, w in zip(channels.values(), widths, strict=True)
        )
        self.blocks = nn.ModuleList(Block(sum(widths[:i])) for i in range(2, len(widths) + 1))
        self.to_k = nn.Linear(sum(widths) * patch**2, width, bias=False)
        self.to_q = nn.Linear(text, width, bias=False)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.mlp = nn.Sequential(
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, sum(widths)),
        )
        self.train()

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
        for layer in self.layers:
            queries = layer(queries, memory)
        return torch.einsum("nc,chw->nhw", self.mlp(queries), _resize(fused, self.size)[0])


def _resize(x: Tensor, side: int) -> Tensor:
    return F.interpolate(x, size=side, mode="bilinear", align_corners=False)


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
    for o, t in zip(ours.layers, theirs.layers, strict=True):
        for own, other in ((o.self_attention, t.own), (o.cross_attention, t.cross)):
            stacked = other.in_proj_weight.chunk(3)
            pairs += zip((own.q.weight, own.k.weight, own.v.weight), stacked, strict=True)
            pairs += [(own.out.weight, other.out_proj.weight)]
        for own, other in (
            (o.norm_self, t.norm1),
            (o.norm_cross, t.norm2),
            (o.norm_ffn, t.norm3),
            (o.ffn[0], t.wide),
            (o.ffn[2], t.narrow),
        ):
            pairs += [(own.weight, other.weight), (own.bias, other.bias)]
    for o, t in zip(ours.mask_embedding, theirs.mlp, strict=True):
        pairs += zip(o.parameters(), t.parameters(), strict=True)
    with torch.no_grad():
        for own, other in pairs:
            assert own.shape == other.shape
            own.copy_(other)
        for o, _ in convolutions:  # the norm's vectors, settled
            norm = o.parametrizations.weight[0]
            norm._power_method(o.parametrizations.weight.original.flatten(1), 2000)
    assert len(pairs) == len(list(ours.parameters()))
