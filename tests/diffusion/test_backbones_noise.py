"""Rectified flow's noise, inversion, contrast and latents, against hand-computed values."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

from ml.diffusion.backbones.kinds import backbone_of
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.evidence import leave_one_out, prediction_errors
from ml.diffusion.inversion import invert
from ml.diffusion.latents import add_noise, encode_images
from ml.diffusion.loading import set_scheduler
from ml.diffusion.sampling import sample
from ml.grounding.presence import compete, presence
from ml.words.left_out import NOTHING
from tests.builders.tiny import tiny_pipeline
from tests.builders.tiny_flow import tiny_flow

PROMPT = "a dog and a cat"


@pytest.fixture(scope="module", params=["sd3", "flux-dev"])
def pipe(request):
    made = tiny_flow(request.param)
    made.t5_tokens = 32
    return made


@pytest.fixture(scope="module")
def latents():
    return torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))


def velocity(pipe, noisy, timestep, text):
    """One pass by diffusers' own call, float32 (C,h,w)."""
    with torch.no_grad():
        if not isinstance(pipe, FluxPipeline):
            hidden, _, pooled, _ = pipe.encode_prompt(
                text, None, None, do_classifier_free_guidance=False, max_sequence_length=32
            )
            return pipe.transformer(noisy[None], hidden, pooled, torch.tensor([timestep])).sample[0]
        hidden, pooled, ids = pipe.encode_prompt(text, None, max_sequence_length=32)
        (out,) = pipe.transformer(
            pipe._pack_latents(noisy[None], 1, 4, 16, 16),
            hidden,
            pooled,
            torch.tensor([timestep / 1000]),
            pipe._prepare_latent_image_ids(1, 8, 8, "cpu", torch.float32),
            ids,
            torch.tensor([3.5]),
            return_dict=False,
        )
        return pipe._unpack_latents(out, 64, 64, 4)[0]


def test_noise_is_mixed_along_a_straight_line(pipe, latents):
    noisy = add_noise(pipe, latents, 250, [1, 2])
    assert torch.equal(noisy, add_noise(pipe, latents, 250, [1, 2]))
    noise = (noisy - 0.75 * latents) / 0.25
    assert abs(float(noise.std()) - 1) < 0.05 and abs(float(noise.mean())) < 0.1
    assert torch.equal(add_noise(pipe, latents[1:], 250, [2]), noisy[1:])
    assert torch.equal(add_noise(pipe, latents, 0, [1, 2]), latents)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)  # its 1000 training times are whole
    theirs = scheduler.scale_noise(latents, torch.tensor([250.0, 250.0]), noise)
    assert torch.allclose(noisy, theirs, atol=1e-5)


def test_the_noise_share_is_the_schedulers_own_sigma_whatever_its_shift(pipe):
    process = backbone_of(pipe).process
    for shift in (1.0, 3.0):
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(7)
        for time, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
            signal, rest = process.shares(scheduler, round(float(time)))
            assert abs(rest - float(sigma)) < 6e-4 and signal + rest == pytest.approx(1)
    clean, noise = torch.tensor([2.0]), torch.tensor([0.5])
    assert process.target(pipe.scheduler, clean, noise, 300) == torch.tensor([-1.5])
    assert process.to_velocity(pipe.scheduler, 300) == 1.0


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_timesteps_in_bfloat16_are_those_that_diffusers_pipeline_tells(name, latents):
    """Stable Diffusion 3's tells every time of its schedule, FLUX's the nearest number of bfloat16:
    2 apart from 256 on, 4 from 512."""
    pipe, told = tiny_flow(name).to(torch.bfloat16), []
    pipe.t5_tokens = 32
    pipe.transformer.register_forward_pre_hook(
        lambda module, inputs, named: told.append(named["timestep"]), with_kwargs=True
    )
    sample(pipe, ["a dog"], [1], steps=4, guidance_scale=4.0)
    drawn, told[:] = [times[:1] for times in told], []
    backbone, text = backbone_of(pipe), encode_prompts(pipe, ["a dog"])
    given = latents[:1].to(torch.bfloat16)
    with torch.no_grad():
        for time in pipe.scheduler.timesteps:
            backbone.predict(pipe, given, time, text)
        one, other = (backbone.predict(pipe, given, time, text) for time in (551, 552))
    assert len(drawn) == 4
    for own, theirs in zip(told, drawn, strict=False):
        assert own.dtype == theirs.dtype and torch.equal(own, theirs)
    assert torch.equal(one, other) is (name == "flux-dev")


def test_the_contrast_is_of_two_velocities(pipe, latents):
    found = leave_one_out(pipe, latents, [PROMPT, "a dog"], [["a cat"], []], [200, 600], [5, 6], 2)
    assert [own.shape for own in found] == [(1, 2, 16, 16), (0, 2, 16, 16)]
    for k, timestep in enumerate((200, 600)):
        noisy = add_noise(pipe, latents[:1], timestep, [5])[0]
        change = velocity(pipe, noisy, timestep, PROMPT) - velocity(pipe, noisy, timestep, "a dog")
        assert torch.allclose(found[0][0, k], change.abs().mean(0), rtol=1e-3, atol=1e-5)
    assert found[0].mean() > 1e-4


def test_the_errors_under_texts_and_the_presence_score(pipe, latents):
    (errors,) = prediction_errors(pipe, latents[:1], [["a dog", ""]], [300], [4], 4)
    noisy = add_noise(pipe, latents[:1], 300, [4])[0]
    noise = (noisy - 0.7 * latents[0]) / 0.3
    for j, text in enumerate(("a dog", "")):
        wrong = velocity(pipe, noisy, 300, text) - (noise - latents[0])
        assert torch.allclose(errors[j, 0], wrong.square().sum(0), rtol=1e-3, atol=1e-3)
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    (scores,) = presence(pipe, images, [["dog", "cat"]], timesteps=[300])
    texts = [NOTHING, "a photograph of a dog", "a photograph of a cat"]
    (own,) = prediction_errors(pipe, encode_images(pipe, images), [texts], [300], [0], 4)
    assert np.allclose(scores, compete((own[:1] - own[1:])[:, 0].numpy()), rtol=1e-3, atol=1e-6)


def test_errors_are_of_noisy_pictures_alone(pipe, latents):
    with pytest.raises(ValueError, match=r"timesteps: expected some with noise.*got \[0\]"):
        prediction_errors(pipe, latents[:1], [["a dog"]], [0, 300], [4], 4)


def test_inversion_follows_the_velocity(pipe, latents):
    """Euler's steps from the picture, computed here; the same steps backwards nearly lead home."""
    noisy = invert(pipe, latents, [PROMPT, "a dog"], 4)
    by_hand = latents[0]
    for time in range(4):
        by_hand = by_hand + 0.001 * velocity(pipe, by_hand, float(time), PROMPT)
    assert torch.allclose(noisy[0], by_hand, atol=1e-4)
    back = noisy[0]
    for time in range(4, 0, -1):
        back = back - 0.001 * velocity(pipe, back, float(time), PROMPT)
    assert (back - latents[0]).norm() < 0.1 * (noisy[0] - latents[0]).norm()
    assert torch.allclose(invert(pipe, latents[:1], [PROMPT], 4)[0], noisy[0], atol=1e-5)


def test_latents_of_pictures_are_shifted_and_scaled_as_the_pipeline_decodes_them(pipe):
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), np.uint8)
    found = encode_images(pipe, images)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        mean = pipe.vae.encode(pixels).latent_dist.mean
    config = pipe.vae.config
    assert config.shift_factor > 0
    assert torch.allclose(found / config.scaling_factor + config.shift_factor, mean, atol=1e-5)


def test_what_the_pipeline_draws_is_what_the_last_prediction_decodes_to(pipe):
    """The kept latent, one Euler step and the VAE's shift and scale give the picture's pixels."""
    made = sample(pipe, [PROMPT], [4], steps=3, guidance_scale=3.5)
    sigma, time = float(pipe.scheduler.sigmas[-2]), float(pipe.scheduler.timesteps[-1])
    v = velocity(pipe, made.latents[0], time, PROMPT)
    if not isinstance(pipe, FluxPipeline):
        empty = velocity(pipe, made.latents[0], time, "")
        v = empty + 3.5 * (v - empty)
    clean = made.latents - sigma * v
    config = pipe.vae.config
    with torch.no_grad():
        picture = pipe.vae.decode(clean / config.scaling_factor + config.shift_factor).sample[0]
    pixels = ((picture / 2 + 0.5).clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels - made.images[0]).max() <= 1


def test_schedulers_of_the_other_process_are_refused(pipe):
    with pytest.raises(ValueError, match="DDIMScheduler adds noise as .*flow matching: expected"):
        set_scheduler(pipe, "DDIMScheduler")
    with pytest.raises(ValueError, match="diffusion.scheduler.*FlowMatchEuler"):
        set_scheduler(tiny_pipeline(), "FlowMatchEulerDiscreteScheduler")
    with pytest.raises(ValueError, match="diffusion.scheduler"):
        set_scheduler(pipe, "FlowMatchHeunDiscreteScheduler")
    before = pipe.scheduler.config.shift
    set_scheduler(pipe, "FlowMatchEulerDiscreteScheduler")
    assert pipe.scheduler.config.shift == before


def test_a_schedule_that_does_not_end_at_the_picture_is_refused(pipe):
    process = backbone_of(pipe).process
    process.check(FlowMatchEulerDiscreteScheduler(shift=3.0), 4)
    for strange in ({"shift": 3.0, "invert_sigmas": True}, {"stochastic_sampling": True}):
        with pytest.raises(ValueError, match="can't draw in 5 steps"):
            process.check(FlowMatchEulerDiscreteScheduler(**strange), 5)


def test_encoded_prompts_follow_the_asked_order(pipe):
    both = encode_prompts(pipe, [PROMPT, "a dog"])
    assert torch.allclose(both[[1]].pooled, encode_prompts(pipe, ["a dog"]).pooled, atol=1e-5)
