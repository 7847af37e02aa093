"""What the pipeline returns, in the types that its caller asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image

from ml.grounding.given import enlarged
from ml.grounding.grounded import Grounded

OutputType = Literal["pil", "np", "pt"]
Images = list[Image.Image] | np.ndarray | torch.Tensor
Map = np.ndarray | torch.Tensor
SHOWN = 3
"""Entries of a list that a line about an output names."""


@dataclass(frozen=True, repr=False)
class GroundedOutput:
    """Pictures with a mask for each word. One entry a picture, also of a single one.

    H and W are a picture's own size. Words are the keys as they were asked for, in that order.

    Attributes:
        images: `"pil"`: list of PIL pictures, RGB; `"np"`: float32 (B,H,W,3) in 0..1; `"pt"`:
            float32 (B,3,H,W) in 0..1, on the CPU.
        masks: word -> bool (H,W); numpy, with `"pt"` a tensor.
        probabilities: word -> float32 (H,W) in 0..1; numpy, with `"pt"` a tensor. With a `seeded`
            module they add up to 1 at most, and the rest is background; with a `paper` module each
            word stands alone.
        presence: word -> how surely it is in the picture at all, >= 0 (`ml.grounding.presence`);
            None unless `min_presence` was given.
        seeds: of the pictures' initial noise, 0..2**32-1, so that each can be drawn again; None for
            pictures that were given.

    Examples:
        >>> out = pipe("a photograph of a dog and a cat", ["dog", "cat"], seed=0, output_type="pt")
        >>> out.images.shape, out.seeds
        (torch.Size([1, 3, 64, 64]), [0])
        >>> {word: mask.dtype for word, mask in out.masks[0].items()}
        {'dog': torch.bool, 'cat': torch.bool}
        >>> out
        GroundedOutput(1 picture: tensor 64x64 'dog', 'cat'; seeds: 0)
    """

    images: Images
    masks: list[dict[str, Map]]
    probabilities: list[dict[str, Map]]
    presence: list[dict[str, float]] | None = None
    seeds: list[int] | None = None

    def __repr__(self) -> str:
        """One line: how many pictures, and of the first few their sizes (HxW), words and seeds."""
        count = len(self.masks)
        first = [
            f"{'x'.join(map(str, next(iter(masks.values())).shape))} "
            + _short([repr(word) for word in masks], ", ")
            for masks in self.masks[:SHOWN]
        ]
        kind = "PIL" if isinstance(self.images, list) else "array"
        kind = "tensor" if isinstance(self.images, torch.Tensor) else kind
        parts = [
            f"{count} picture{'s' * (count != 1)}: {kind} {_short(first, ' | ', count)}",
            *(["presence"] if self.presence is not None else []),
            *([f"seeds: {_short(list(map(str, self.seeds)), ', ')}"] if self.seeds else []),
        ]
        return f"GroundedOutput({'; '.join(parts)})"


def _short(entries: Sequence[str], between: str, count: int | None = None) -> str:
    """The first SHOWN entries, and dots where there are more; count: of all."""
    more = (len(entries) if count is None else count) > SHOWN
    return between.join([*entries[:SHOWN], *(["..."] if more else [])])


def check_output_type(output_type: str) -> None:
    """Raises ValueError for another one than "pil", "np" and "pt"."""
    if output_type not in get_args(OutputType):
        raise ValueError(f"output_type: expected pil, np or pt, got {output_type!r}")


def as_images(pictures: Sequence[np.ndarray], output_type: str) -> Images:
    """Pictures uint8 (H,W,3) as `GroundedOutput.images`. Raises ValueError where pictures of
    several sizes are to become one array."""
    if output_type == "pil":
        return [Image.fromarray(picture) for picture in pictures]
    if len(sizes := {picture.shape for picture in pictures}) > 1:
        raise ValueError(
            f"output_type {output_type!r} makes one array of all pictures, and theirs are of "
            f'{len(sizes)} sizes: {sorted(sizes)}; take "pil"'
        )
    stacked = np.stack(pictures).astype(np.float32) / 255
    return stacked if output_type == "np" else torch.from_numpy(stacked.transpose(0, 3, 1, 2))


def _by_word(words: Sequence[str], maps: np.ndarray, output_type: str) -> dict[str, Map]:
    """Maps (n,H,W) of n words, each under its word."""
    kept: list[Any] = [np.ascontiguousarray(own) for own in maps]
    if output_type == "pt":
        kept = [torch.from_numpy(own) for own in kept]
    return dict(zip(words, kept, strict=True))


def as_output(
    found: Grounded,
    pictures: Sequence[np.ndarray],
    words: Sequence[Sequence[str]],
    output_type: str,
    seeds: list[int] | None = None,
) -> GroundedOutput:
    """What the engine found for words in pictures, at the pictures' own sizes.

    pictures: uint8 (H,W,3) each. words: n_i for each, as they were asked for. seeds: that the
    pictures were drawn with.
    """

    def named(maps: Sequence[np.ndarray]) -> list[dict[str, Map]]:
        return [
            _by_word(own, enlarged(values, picture.shape[:2]), output_type)
            for own, values, picture in zip(words, maps, pictures, strict=True)
        ]

    scores = None
    if found.presence is not None:
        scores = [
            dict(zip(own, map(float, values), strict=True))
            for own, values in zip(words, found.presence, strict=True)
        ]
    return GroundedOutput(
        as_images(pictures, output_type),
        named(found.masks),
        named(found.probabilities),
        scores,
        seeds,
    )
