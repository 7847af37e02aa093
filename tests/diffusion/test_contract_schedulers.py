"""Schedulers: those that are offered end where a closed form does, the rest is refused.

An exact answer is known for latents of a normal distribution.
"""

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler

from ml.diffusion.backbones.noising import signal_shares
from ml.diffusion.inversion import invert
from ml.diffusion.sampling import sample
from ml.diffusion.schedulers import check_name, check_scheduler, swapped
from ml.settings.sections import FLOW_SCHEDULERS, SCHEDULERS
from tests.builders.tiny import tiny_pipeline

ONE = "a photograph of a bus"

MEAN, SPREAD = 1.5, 0.6
STOCHASTIC = {"DDPMScheduler", "EulerAncestralDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"}


def base(**changes):
    usual = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return DDIMScheduler(**usual | changes)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_that_is_offered_ends_where_the_closed_form_does(name, prediction):
    """Latents N(mean, spread^2): the best prediction is linear, and the probability flow takes
    x_T to mean + spread (x_T - sqrt(a) mean) / sqrt(a spread^2 + 1 - a)."""
    scheduler = swapped(base(prediction_type=prediction), name)
    shares = signal_shares(tiny_pipeline().scheduler).double()
    random = torch.Generator().manual_seed(1)
    start = torch.randn(1, 4, 32, 32, generator=random, dtype=torch.float64)
    scheduler.set_timesteps(50)
    latents, ends = start * scheduler.init_noise_sigma, None
    for time in scheduler.timesteps:
        given = scheduler.scale_model_input(latents, time)
        at = float(time)
        assert 0 <= at <= 999
        a = torch.lerp(shares[int(at)], shares[min(int(at) + 1, 999)], at % 1)
        clean = MEAN + SPREAD**2 * a.sqrt() * (given - a.sqrt() * MEAN) / (a * SPREAD**2 + 1 - a)
        noise = (given - a.sqrt() * clean) / (1 - a).sqrt()
        if ends is None:
            ends = MEAN + SPREAD * (given - a.sqrt() * MEAN) / (a * SPREAD**2 + 1 - a).sqrt()
        # In the units of DDPM's forward process: as spread as noised latents are.
        assert float(given.std()) == pytest.approx(float((a * SPREAD**2 + 1 - a).sqrt()), rel=0.1)
        said = noise if prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean
        takes = {"generator": random} if name in STOCHASTIC else {}
        latents = scheduler.step(said, time, latents, return_dict=False, **takes)[0]
    assert float(latents.mean()) == pytest.approx(MEAN, abs=0.1)  # x_T's is 0, not sqrt(a) mean
    assert float(latents.std()) == pytest.approx(SPREAD, rel=0.1)
    if name not in STOCHASTIC:
        assert float((latents - ends).abs().mean()) < 0.1 * SPREAD


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_that_is_offered_draws_with_a_real_u_net(name):
    """Deterministic ones come to DDIM's picture; the kept latent is at a timestep of 0..999."""
    pipe = tiny_pipeline("epsilon")
    pipe.scheduler = swapped(pipe.scheduler, "DDIMScheduler")
    call = {"steps": 40, "guidance_scale": 1.5}
    reference = sample(pipe, [ONE], [3], **call)
    pipe.scheduler = swapped(pipe.scheduler, name)
    made = sample(pipe, [ONE], [3], **call)
    assert 0 <= made.timestep <= 60
    if name not in STOCHASTIC:
        both = np.stack([made.images.ravel(), reference.images.ravel()]).astype(float)
        assert np.corrcoef(both)[0, 1] > 0.9


def test_the_rest_is_refused_by_name():
    offered = {name for name in dir(diffusers) if name.endswith("Scheduler")}
    for name in FLOW_SCHEDULERS:  # of other models than this one
        check_name(name)
        with pytest.raises(ValueError, match=f"expected one of .*DDIMScheduler.*got '{name}'"):
            swapped(base(), name)
    known = {*SCHEDULERS, *FLOW_SCHEDULERS}
    for name in sorted(offered - known) + ["DDIMSchedular", "AutoencoderKL"]:
        with pytest.raises(ValueError, match=f"expected one of .*DDIMScheduler.*got '{name}'"):
            check_name(name)
        with pytest.raises(ValueError, match="diffusion.scheduler"):
            swapped(base(), name)


@pytest.mark.parametrize(
    "make, why",
    [
        (lambda: diffusers.EDMEulerScheduler(), "times the noise"),
        (lambda: diffusers.FlowMatchEulerDiscreteScheduler(), "prediction_type|init_noise_sigma"),
        (lambda: base(clip_sample=True), "times the noise"),
        (lambda: base(thresholding=True), "times the noise"),
        (lambda: base(rescale_betas_zero_snr=True, timestep_spacing="trailing"), "not finite"),
        (
            lambda: DPMSolverMultistepScheduler(
                use_flow_sigmas=True, prediction_type="flow_prediction"
            ),
            "can't draw",
        ),
        (lambda: swapped(base(prediction_type="sample"), "PNDMScheduler"), "can't draw"),
    ],
)
def test_a_trial_finds_what_does_not_draw(make, why):
    with pytest.raises(ValueError, match=why):
        check_scheduler(make(), 20)


def test_a_trial_is_passed_by_zero_terminal_snr_with_v():
    check_scheduler(
        base(
            rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction"
        ),
        20,
    )


def test_a_swap_keeps_the_noise_schedule_or_is_refused():
    zero = base(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    kept = swapped(zero, "EulerDiscreteScheduler")
    assert torch.allclose(kept.alphas_cumprod, zero.alphas_cumprod, atol=1e-6)
    with pytest.raises(ValueError, match="HeunDiscrete.*can't keep.*rescale_betas_zero_snr"):
        swapped(zero, "HeunDiscreteScheduler")


def test_a_swap_does_not_cut_latents():
    """DPM-Solver's configuration says nothing of clip_sample, which is DDIM's default."""
    source = DPMSolverMultistepScheduler(prediction_type="v_prediction")
    assert DDIMScheduler.from_config(source.config).config.clip_sample  # what diffusers does
    assert not swapped(source, "DDIMScheduler").config.clip_sample


def test_inversion_does_not_cut_latents():
    """The same picture's latents lead to the same noise whatever class the schedule came by."""
    random = torch.Generator().manual_seed(0)
    latents = 3 * torch.randn(1, 6, 16, 16, generator=random)
    found = []
    for kind in ("DDIMScheduler", "DPMSolverMultistepScheduler"):
        pipe = tiny_pipeline()
        values = {k: v for k, v in pipe.scheduler.config.items() if k != "clip_sample"}
        pipe.scheduler = getattr(diffusers, kind).from_config(
            values, **({"clip_sample": False} if kind == "DDIMScheduler" else {})
        )
        found.append(invert(pipe, latents, [ONE], 125))
    assert torch.allclose(*found, atol=1e-4)
