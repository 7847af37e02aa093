"""The diffusers schedulers that work with Stable Diffusion, and a test that each must pass.

Every other part (features, evidence, inversion) is given latents in the units of DDPM's forward
process at a timestep of 0..999. A scheduler in other units (EDM, flow matching), or one that a
model must be distilled for (LCM, TCD), draws noise without an error. Checking a name does not
import diffusers.
"""

import inspect
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ml.settings.sections import FLOW_SCHEDULERS, SCHEDULERS

if TYPE_CHECKING:
    from ml.diffusion.pipeline import Scheduler  # it imports diffusers, which takes seconds

TIMESTEPS = 1000
"""That a model is trained at; everything that names a timestep counts on 0..999."""
PREDICTIONS = ("epsilon", "v_prediction", "sample")
NOISE = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "prediction_type",
    "rescale_betas_zero_snr",
)
"""What a scheduler's configuration says of the model's training: never changed by a swap."""

SIDE = 16
FAR = 0.25
"""Mean distance from the known picture, in its standard deviations, that a trial may end at: a
schedule may leave the noise of its first timestep (0.03); one in other units leaves 1 and more."""


def check_name(name: str) -> None:
    """Raises ValueError, listing the names that fit, for a scheduler that no model here draws
    with."""
    if name not in (*SCHEDULERS, *FLOW_SCHEDULERS):
        raise ValueError(
            f"diffusion.scheduler: expected one of {[*SCHEDULERS, *FLOW_SCHEDULERS]}, got "
            f"{name!r}; change it in the profile"
        )


def check_own(name: str) -> None:
    """Raises ValueError for a scheduler that Stable Diffusion 1, 2 and XL do not draw with."""
    if name not in SCHEDULERS:
        raise ValueError(
            "diffusion.scheduler: this model was trained with the noise of Stable Diffusion 1, 2 "
            f"and XL: expected one of {list(SCHEDULERS)}, got {name!r}; change it in the profile"
        )


def swapped(scheduler: "Scheduler", name: str) -> "Scheduler":
    """A scheduler of another class with the noise schedule of the model's own.

    Raises ValueError for a name that does not fit, or a class that cannot keep the schedule.
    """
    check_own(name)
    import diffusers

    own = dict(scheduler.config)
    made = unclipped(getattr(diffusers, name), scheduler.config)
    known = inspect.signature(type(made).__init__).parameters  # of others it keeps the name alone
    lost = [
        f"{key} {own[key]!r}"
        for key in NOISE
        if own.get(key) not in (None, False) and key not in known
    ]
    if lost:
        raise ValueError(
            f"diffusion.scheduler: {name} can't keep the model's {', '.join(lost)}; "
            f"expected a scheduler that has it, such as {type(scheduler).__name__}"
        )
    return made


def unclipped(kind: "type[Scheduler]", config: Any, **changes: Any) -> "Scheduler":
    """A scheduler of a configuration that leaves latents as they are: they go beyond -1..1.

    The classes that can clip do so by default, where the configuration was written by a class that
    can't and so does not say.
    """
    made: Scheduler = kind.from_config(config, clip_sample=False, **changes)
    return made


def check_scheduler(scheduler: "Scheduler", steps: int) -> None:
    """Lets a scheduler draw a known picture from exact predictions in place of a U-Net's.

    Raises ValueError when it leaves 0..999, works in other units, gives what is not finite, or
    does not end at the picture. Some milliseconds, once for each configuration.
    """
    if why := _trial(type(scheduler), json.dumps(dict(scheduler.config), default=list), steps):
        raise ValueError(
            f"diffusion.scheduler {type(scheduler).__name__} with the model's scheduler_config.json"
            f" (prediction_type {scheduler.config.get('prediction_type')!r}) can't draw in {steps} "
            f"steps: {why}. Choose another of {list(SCHEDULERS)}, another number of steps, or mend "
            "scheduler_config.json"
        )


@lru_cache
def _trial(kind: "type[Scheduler]", config: str, steps: int) -> str | None:
    """What went wrong; None when the picture was drawn."""
    import torch
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    own = json.loads(config)
    shares = DDPMScheduler.from_config(own).alphas_cumprod.double()
    scheduler = kind.from_config(own)
    random = torch.Generator().manual_seed(0)
    picture = 2 * torch.randn(1, 4, SIDE, SIDE, generator=random)  # beyond -1..1, as latents are
    try:
        scheduler.set_timesteps(steps)
        latents = torch.randn(picture.shape, generator=random) * scheduler.init_noise_sigma
        takes = (
            {"generator": random}
            if "generator" in inspect.signature(scheduler.step).parameters
            else {}
        )
        for time in scheduler.timesteps:
            at = float(time)
            if not 0 <= at <= TIMESTEPS - 1:
                return f"its timestep {at:g} is not in 0..{TIMESTEPS - 1}"
            given = scheduler.scale_model_input(latents, time)
            below = int(at)
            above = min(below + 1, TIMESTEPS - 1)
            share = float(shares[below].lerp(shares[above], at - below))
            noise = (given - share**0.5 * picture) / max(1 - share, 1e-12) ** 0.5
            if not torch.isfinite(latents).all():
                break
            if not 0.5 < float(noise.std()) < 2:
                return (
                    f"at timestep {at:g} its latents have {float(noise.std()):.2g} times the "
                    "noise that the model was trained with"
                )
            exact = {
                "epsilon": noise,
                "sample": picture,
                "v_prediction": share**0.5 * noise - (1 - share) ** 0.5 * picture,
            }[own["prediction_type"]]
            latents = scheduler.step(exact, time, latents, return_dict=False, **takes)[0]
    except (
        ValueError,
        NotImplementedError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
    ) as error:
        return f"{type(error).__name__}: {error}"
    if not torch.isfinite(latents).all():
        return "it gives numbers that are not finite"
    far = float((latents - picture).abs().mean() / picture.std())
    return f"it ends {far:.2g} standard deviations beside the picture" if far > FAR else None
