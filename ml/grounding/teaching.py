"""Words taught by a few pictures with masks: `teach` gives a pipeline that has learned them.

Pictures and masks are taken as the pipeline gives them out. Not here: what is fitted to them
(`learning.py`); folders of pictures (`python -m ml teach`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np

from ml.diffusion.latents import add_noise, encode_images
from ml.grounding import given
from ml.grounding.arguments import SEED, number
from ml.grounding.engine import GroundingEngine
from ml.grounding.features import FeatureSource, compute_evidence
from ml.grounding.given import Picture
from ml.grounding.learning import QUERY, WAYS, learn_module, learn_queries
from ml.grounding.pipeline import GroundedDiffusionPipeline
from ml.grounding.samples import Sample
from ml.images.run_lengths import encode_rle
from ml.images.stored import Pictures
from ml.metrics.iou import binary_iou
from ml.settings.ranges import Range

TEACHING_STEPS = Annotated[int, Range(1, 100_000)]
NOISE = 0
"""Seed of the noise on the pictures' latents: that of `ground`, unless it is asked for another."""
Masks = Mapping[str, np.ndarray]
"""Word -> mask bool (H,W)."""


def teach(
    pipe: GroundedDiffusionPipeline,
    images: Sequence[Picture],
    masks: Sequence[Masks],
    what: str,
    *,
    steps: int | None = None,
    seed: int = 0,
    ignored: Sequence[np.ndarray | None] | None = None,
) -> GroundedDiffusionPipeline:
    """A pipeline that has learned the words of some labelled pictures; the given one stays as it
    is, and both share the diffusion model.

    Args:
        pipe: that grounds the words so far.
        images: pictures as `pipe.ground` takes them.
        masks: for each picture, word -> bool (H,W), as `GroundedOutput.masks` has them. Every
            pixel under no mask counts as background.
        what: "query" learns a text query for each of these words, which takes the place of its
            text embedding wherever the word is asked for, and changes nothing else; "module" trains
            a copy of the grounding module, which moves other words a little, too.
        steps: of the optimiser; by default 100 for a query; for the module 30 and
            one more a picture, 300 at most.
        seed: of the pictures' order and, of the module, of its text dropout. Equal arguments give
            an equal pipeline.
        ignored: for each picture, pixels bool (H,W) that nothing is learned from, or None.

    Raises:
        ValueError: no picture, lists of unequal length, a mask that is not bool (H,W) of its
            picture's size, has no pixel, or none left at the model's size, words that may not be
            asked for, a number out of its range, or another way than the two.
        NotFinite: the loss is no number.

    Examples:
        >>> from ml.grounding.teaching import teach
        >>> mask = np.zeros((picture.height, picture.width), bool)
        >>> mask[16:48, 16:48] = True
        >>> taught = teach(pipe, [picture], [{"dog": mask}], "query", steps=2)
        >>> list(taught.queries), taught.module is pipe.module
        (['dog'], True)
    """
    if what not in WAYS:
        raise ValueError(f"what: expected {' or '.join(WAYS)}, got {what!r}")
    steps = None if steps is None else number("steps", steps, TEACHING_STEPS)
    seed = number("seed", seed, SEED)
    engine = pipe.engine
    source = source_of(engine, images, masks, ignored)
    module, queries = engine.module, dict(pipe.queries)
    if what == QUERY:
        queries |= learn_queries(module, source, steps=steps, seed=seed)
    else:
        module = learn_module(module, source, steps=steps, seed=seed)
    drawing = pipe.num_inference_steps, pipe.guidance_scale
    return GroundedDiffusionPipeline(pipe.pipe, module, engine.batches.size, *drawing, queries)


def source_of(
    engine: GroundingEngine,
    images: Sequence[Picture],
    masks: Sequence[Masks],
    ignored: Sequence[np.ndarray | None] | None = None,
) -> FeatureSource:
    """The pictures as `ground` sees them, with their masks: squeezed into the model's square,
    noised to its timestep, their prompts composed of their words. See `teach`."""
    own, side = checked(images, masks, ignored), engine.config.picture_size
    asked = engine.asked([list(words) for words in masks])
    small = np.stack([given.squared(picture, side) for picture in own])
    timestep = engine.config.feature_timestep
    noise = [NOISE] * len(own)

    def encode(part: Sequence[int]) -> np.ndarray:
        latents = encode_images(engine.pipe, small[list(part)])
        noisy = add_noise(engine.pipe, latents, timestep, [NOISE] * len(part))
        return np.asarray(noisy.cpu().numpy(), np.float32)

    encoded = [row for _, rows in engine.batches.run(range(len(own)), encode) for row in rows]
    uncertain = ignored or [None] * len(own)
    samples = [
        Sample(
            key=str(place),
            text=one.prompt,
            entities=tuple(one.words),
            words=tuple(one.words),
            phrases=tuple(one.phrases),
            cell="",
            subset="train",
            seed=NOISE,
            size=(side, side),
            shard=Path(),  # the picture itself is not looked at again
            row=0,
            pictures=Pictures(),
            latent=encoded[place],
            timestep=timestep,
            rles=tuple(_rle(masks[place][word], word, place, side) for word in one.words),
            daam=np.zeros((len(one.words), 0, 0), np.float32),
            ignored=_ignored(uncertain[place], side),
        )
        for place, one in enumerate(asked)
    ]
    evidence = None
    if engine.config.competition:
        evidence = compute_evidence(
            engine.pipe,
            small,
            [sample.text for sample in samples],
            [sample.phrases for sample in samples],
            engine.config.evidence_timesteps,
            noise,
            engine.batches,
        )
    return FeatureSource(engine.pipe, samples, evidence, words=engine.words)


def _rle(mask: np.ndarray, word: str, place: int, side: int) -> str:
    resized = given.enlarged(mask[None], (side, side))[0]
    if not resized.any():
        raise ValueError(
            f"picture {place}: the mask of {word!r} has {np.count_nonzero(mask)} pixels, and none "
            f"at the model's {side}x{side}; cut the picture closer to it, or leave it out"
        )
    return encode_rle(resized)


def _ignored(pixels: np.ndarray | None, side: int) -> str:
    if pixels is None or not pixels.any():
        return ""
    return encode_rle(given.enlarged(pixels[None], (side, side))[0])


def checked(
    images: Sequence[Picture],
    masks: Sequence[Masks],
    ignored: Sequence[np.ndarray | None] | None = None,
) -> list[np.ndarray]:
    """The pictures, uint8 (H,W,3). Raises ValueError for masks that are not theirs."""
    own, _ = given.pictures_of(list(images))
    counts = {"masks": masks, "ignored": masks if ignored is None else ignored}
    for name, entries in counts.items():
        if len(entries) != len(own):
            raise ValueError(
                f"{name}: expected one for each of {len(own)} pictures, got {len(entries)}"
            )
    for place, (picture, words) in enumerate(zip(own, masks, strict=True)):
        if not words:
            raise ValueError(f"picture {place} has no mask: leave it out, it would teach nothing")
        for word, mask in words.items():
            _check(mask, picture.shape[:2], f"picture {place}, {word!r}")
            if not mask.any():
                raise ValueError(
                    f"picture {place}: the mask of {word!r} has no pixel; leave it out"
                )
        if ignored is not None and ignored[place] is not None:
            _check(ignored[place], picture.shape[:2], f"picture {place}, ignored")
    return own


def _check(mask: object, size: tuple[int, ...], where: str) -> None:
    if not isinstance(mask, np.ndarray) or mask.dtype != bool or mask.shape != size:
        got = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise ValueError(f"{where}: expected a mask bool {size} as the picture is, got {got}")


def score(
    pipe: GroundedDiffusionPipeline,
    images: Sequence[Picture],
    masks: Sequence[Masks],
    ignored: Sequence[np.ndarray | None] | None = None,
) -> dict[str, float]:
    """Word -> mean IoU, in percent, of the masks that `pipe.ground` gives the words of each picture
    with the given ones, over the pixels that are not ignored. Raises ValueError as `teach` does."""
    own = checked(images, masks, ignored)
    found = pipe.ground(own, [list(words) for words in masks])
    ious: dict[str, list[float]] = {}
    for place, words in enumerate(masks):
        pixels = None if ignored is None else ignored[place]
        counted = np.ones(own[place].shape[:2], bool) if pixels is None else ~pixels
        for word, mask in words.items():
            mine = np.asarray(found.masks[place][word])
            ious.setdefault(word, []).append(binary_iou(mine[counted], mask[counted]))
    return {word: 100 * float(np.mean(values)) for word, values in ious.items()}
