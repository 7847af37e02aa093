"""Seconds by stage: counts times what the probe measured."""

from dataclasses import dataclass

from ml.cli.planning.counts import Counts
from ml.settings.params import Params


@dataclass(frozen=True)
class Figures:
    """Seconds on this machine; None where it could not be measured."""

    draw: float | None = None  # a picture, all steps and its decoding
    ground: float | None = None  # a drawn picture: features, evidence, masks
    evidence: float | None = None  # a training picture
    features: float | None = None  # a training picture, one guided pass
    grounding_step: float | None = None  # an optimizer step, features at hand
    validate: float | None = None  # a validation picture, features at hand
    detect: float | None = None  # a picture
    segmenter_step: float | None = None  # an optimizer step


def passes(pictures: int, uses: int, cached: int) -> float:
    """U-Net passes for so many uses of pictures, of which `cached` are kept after the first."""
    if not pictures or not uses:
        return 0.0
    kept = min(pictures, cached)
    return min(kept, uses) + (1 - kept / pictures) * uses


def stage_seconds(
    counts: Counts, figures: Figures, params: Params, cached: int
) -> dict[str, float | None]:
    """Seconds by stage; None where a figure is missing. cached: pictures whose features are kept.

    Upper bounds: every picture is taken as accepted, and no training as stopped early.
    """
    grounding, wanted = params.grounding, figures
    held = round(params.triplets.validation_share * counts.train)
    learnt = counts.train - held
    evaluations = -(-grounding.steps // grounding.evaluate_every)
    unet_passes = passes(learnt, grounding.steps * grounding.batch_size, cached) + passes(
        held, evaluations * held, cached
    )
    evidence = counts.train if grounding.variant == "seeded" else 0
    steps = params.segmenter.steps
    return {
        "images": times((counts.images, wanted.draw)),
        "masks": times((counts.images, wanted.detect)),
        "grounding_model": times(
            (evidence, wanted.evidence),
            (unet_passes, wanted.features),
            (grounding.steps, wanted.grounding_step),
            (evaluations * held, wanted.validate),
        ),
        "grounding_scores": times((counts.sim, wanted.ground)),
        "synthetic_dataset": times(
            (counts.synthetic, wanted.draw), (counts.synthetic, wanted.ground)
        ),
        "segmenter": times((steps, wanted.segmenter_step)),
        "real_bound": 0.0
        if params.benchmark.source == "none"
        else times((steps, wanted.segmenter_step)),
    }


def times(*parts: tuple[float, float | None]) -> float | None:
    """Sum of count x seconds; None when a figure that counts is missing."""
    if any(count and seconds is None for count, seconds in parts):
        return None
    return sum(count * seconds for count, seconds in parts if count)
