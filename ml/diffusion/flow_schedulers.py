"""The diffusers schedulers that work with flow-matching models, and a test that each must pass.

Not here: those of Stable Diffusion's U-Nets, whose noise is another (`ml.diffusion.schedulers`).
"""

import json
from functools import lru_cache
from typing import Any

from ml.diffusion.schedulers import TIMESTEPS
from ml.settings.sections import FLOW_SCHEDULERS as SCHEDULERS

FAR = 0.05
"""Mean distance from the known picture, in its standard deviations, that a trial may end at: along
a straight line every step is exact."""
SEQUENCE = 4096
"""Tokens of a picture of 1024 pixels, for the schedules that shift by their number."""


def check_own(name: str) -> None:
    """Raises ValueError for a scheduler that flow-matching models do not draw with."""
    if name not in SCHEDULERS:
        raise ValueError(
            f"diffusion.scheduler: {name} adds noise as Stable Diffusion 1, 2 and XL do, and this "
            f"model was trained by flow matching: expected one of {list(SCHEDULERS)}; change it in "
            "the profile"
        )


def swapped(scheduler: Any, name: str) -> Any:
    """A scheduler of another class with the shift of the model's own. Raises ValueError for a name
    that does not fit a flow-matching model."""
    check_own(name)
    import diffusers

    return getattr(diffusers, name).from_config(scheduler.config)


def check_scheduler(scheduler: Any, steps: int) -> None:
    """Lets a scheduler draw a known picture from exact velocities in place of a model's.

    Raises ValueError when it leaves 0..1000, gives what is not finite, or does not end at the
    picture. Some milliseconds, once for each configuration.
    """
    if why := _trial(
        type(scheduler).__name__, json.dumps(dict(scheduler.config), default=list), steps
    ):
        raise ValueError(
            f"diffusion.scheduler {type(scheduler).__name__} with the model's scheduler_config.json"
            f" can't draw in {steps} steps: {why}. Choose another of {list(SCHEDULERS)}, another "
            "number of steps, or mend scheduler_config.json"
        )


def shift_of(scheduler: Any) -> dict[str, float]:
    """The argument of `set_timesteps` of a schedule that shifts by the number of tokens: as FLUX's
    pipeline finds it for a picture of 1024 pixels."""
    config = scheduler.config
    if not config.get("use_dynamic_shifting"):
        return {}
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    return {"mu": low + (high - low) * (SEQUENCE - few) / (many - few)}


@lru_cache
def _trial(name: str, config: str, steps: int) -> str | None:
    """What went wrong; None when the picture was drawn."""
    import diffusers
    import torch

    scheduler = getattr(diffusers, name).from_config(json.loads(config))
    random = torch.Generator().manual_seed(0)
    picture = 2 * torch.randn(1, 4, 16, 16, generator=random)  # beyond -1..1, as latents are
    noise = torch.randn(picture.shape, generator=random)
    latents = noise
    try:
        scheduler.set_timesteps(steps, **shift_of(scheduler))
        for time in scheduler.timesteps:
            if not 0 <= float(time) <= TIMESTEPS:
                return f"its timestep {float(time):g} is not in 0..{TIMESTEPS}"
            share = float(time) / TIMESTEPS
            met = float((latents - (1 - share) * picture - share * noise).abs().mean())
            if not met < FAR:
                return f"at timestep {float(time):g} its latents are {met:.2g} beside the line"
            latents = scheduler.step(noise - picture, time, latents, return_dict=False)[0]
    except (ValueError, NotImplementedError, IndexError, KeyError, TypeError, AttributeError,
            RuntimeError) as error:  # fmt: skip
        return f"{type(error).__name__}: {error}"
    if not torch.isfinite(latents).all():
        return "it gives numbers that are not finite"
    far = float((latents - picture).abs().mean() / picture.std())
    return f"it ends {far:.2g} standard deviations beside the picture" if far > FAR else None
