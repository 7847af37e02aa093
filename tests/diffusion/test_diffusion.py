"""ml/diffusion against what is known without it: by-hand attention, plain diffusers, SD's table."""

import gc
import math
import weakref
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch.nn import functional

from ml.compute.devices import find_device
from ml.diffusion import attention
from ml.diffusion.backbones.noising import Ddpm
from ml.diffusion.backbones.unet import arguments
from ml.diffusion.encoding import encode_prompts, word_embeddings
from ml.diffusion.evidence import leave_one_out
from ml.diffusion.features import denoiser_features, feature_channels, feature_taps
from ml.diffusion.inversion import invert
from ml.diffusion.latents import add_noise, encode_images
from ml.diffusion.loading import latent_shape, load_pipeline, set_scheduler
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import word_positions
from ml.pipeline.workspace import Workspace
from ml.settings import sections
from ml.words.left_out import without_phrase
from tests.builders.tiny import LENGTH, WIDTH, save_tiny_pipeline, settings, tiny_pipeline

TWO = "a photograph of a dog and a dining table"
ONE = "a photograph of a bus"
CALL = {"steps": 3, "guidance_scale": 4.0}


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(autouse=True)
def left_as_it_was(request):
    """No hook and no recording processor may outlive a call."""
    yield
    if "pipe" in request.fixturenames:
        unet = request.getfixturevalue("pipe").unet
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in unet.modules())
        kinds = {type(p).__name__ for p in unet.attn_processors.values()}
        assert kinds == {"AttnProcessor2_0"}


# --- inversion


def test_inversion_is_undone_by_ddim(pipe, latents):
    """DDIM steps of the same stride lead back: exactly where the model's answer does not change
    between two steps, nearly where it does."""
    clean, prompts = 0.5 * latents[:2], [ONE, TWO]
    noisy = invert(pipe, clean, prompts, 125)
    assert noisy.shape == clean.shape and not torch.allclose(noisy, clean, atol=0.05)
    assert torch.equal(noisy, invert(pipe, clean, prompts, 125))
    shares = DDPMScheduler.from_config(pipe.scheduler.config).alphas_cumprod
    back, told = noisy, arguments(encode_prompts(pipe, prompts))
    for time in range(125, -1, -12):
        below = time - 12
        a, b = shares[time], shares[below] if below >= 0 else torch.tensor(1.0)
        with torch.no_grad():
            (v,) = pipe.unet(back, time, return_dict=False, **told)
        x0 = a**0.5 * back - (1 - a) ** 0.5 * v
        noise = a**0.5 * v + (1 - a) ** 0.5 * back
        back = b**0.5 * x0 + (1 - b) ** 0.5 * noise
    moved = (noisy - clean).norm()
    assert (back - clean).norm() < 0.2 * moved


def test_inversion_ends_at_the_timestep_that_is_asked_for(pipe):
    for timestep in range(1, 1000):
        seen = []
        Ddpm().inverted(
            pipe.scheduler,
            torch.ones(1, 1, 2, 2),
            timestep,
            lambda given, time, seen=seen: seen.append(time) or given,
        )
        assert seen[-1] == timestep


def test_inversion_does_not_mix_samples_and_refuses_nonsense(pipe, latents):
    alone = invert(pipe, latents[1:2], [TWO], 67)
    assert torch.allclose(invert(pipe, latents[:2], [ONE, TWO], 67)[1:], alone, atol=1e-5)
    with pytest.raises(ValueError, match="one prompt a latent, got 1 for 2"):
        invert(pipe, latents[:2], [ONE], 67)
    with pytest.raises(ValueError, match="expected 1..999, got 0"):
        invert(pipe, latents[:1], [ONE], 0)


# --- loading


def test_load_pipeline_is_frozen_and_keeps_the_noise_schedule(tmp_path):
    save_tiny_pipeline(tmp_path / "data" / "model")
    loaded = load_pipeline(
        Workspace(tmp_path, "micro").located(
            settings(model="data/model", scheduler="EulerDiscreteScheduler")
        )
    )
    assert type(loaded.scheduler).__name__ == "EulerDiscreteScheduler"
    assert loaded.scheduler.config.prediction_type == "v_prediction"
    assert loaded.scheduler.config.beta_end == 0.012
    assert latent_shape(loaded) == (6, 16, 16)
    parameters = [
        *loaded.unet.parameters(),
        *loaded.vae.parameters(),
        *loaded.text_encoder.parameters(),
    ]
    assert not any(p.requires_grad for p in parameters)
    assert not (loaded.unet.training or loaded.vae.training or loaded.text_encoder.training)
    assert loaded.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_load_pipeline_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="no-such/model.*expected a folder.*hub id.*unset HF_HUB"):
        load_pipeline(Workspace(tmp_path, "micro").located(settings(model="no-such/model")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty'.*save_pretrained"):
        load_pipeline(Workspace(tmp_path, "micro").located(settings(model="empty")))


def test_a_pipeline_that_is_dropped_is_gone_at_once(tiny_model):
    """Also its hooks are no cycle, which would wait on the GPU for a full garbage collection."""
    gc.disable()
    try:
        loaded = load_pipeline(settings(tiny_model))
        sample(loaded, [ONE], [1], words=[["bus"]], features=True, **CALL)
        parts = [weakref.ref(part) for part in (loaded.unet, loaded.vae, loaded.text_encoder)]
        del loaded
        assert [part() for part in parts] == [None] * 3
    finally:
        gc.enable()


def test_unknown_scheduler_and_absent_device_are_refused(pipe):
    for name in ("DDIMSchedular", "AutoencoderKL"):
        with pytest.raises(ValueError, match=f"DDIMScheduler.*got '{name}'"):
            set_scheduler(pipe, name)
    for name in ("cuda:99", "warp"):
        with pytest.raises(ValueError, match="not available here"):
            find_device(name)


# --- tokens


@pytest.mark.parametrize(
    ("prompt", "word", "positions"),
    [
        (TWO, "dog", [5]),
        (TWO, "dining table", [8, 9]),
        (TWO, "a dog", [4, 5]),
        (TWO, "Dining Table", [8, 9]),
        ("a dog and a dog", "dog", [2]),
        ("a dog, a cat", "cat", [5]),  # the comma is a token
        ("a zebra", "zebra", [2, 3, 4, 5, 6]),  # spelt: not in the vocabulary
        ("a bobcat and a cat", "cat", [8]),  # the piece "cat" of "bobcat" is another word
    ],
)
def test_word_positions(pipe, prompt, word, positions):
    assert word_positions(pipe, prompt, word) == positions


def test_word_positions_point_at_the_words_own_tokens(pipe):
    ids = pipe.tokenizer(TWO).input_ids
    tokens = pipe.tokenizer.convert_ids_to_tokens(ids)
    assert [tokens[i] for i in word_positions(pipe, TWO, "dining table")] == [
        "dining</w>",
        "table</w>",
    ]


@pytest.mark.parametrize("prompt", [TWO, "a cathedral", "", "zebra zebra zebra zebra zebra a cat"])
def test_word_positions_refuses_what_the_text_encoder_does_not_read(pipe, prompt):
    with pytest.raises(ValueError, match="cat"):
        word_positions(pipe, prompt, "cat")


@pytest.mark.parametrize(
    ("prompt", "phrase", "rest"),
    [
        ("a photograph of a dog and a cat", "a cat", "a photograph of a dog"),
        ("a photograph of a dog and a cat", "a dog", "a photograph of a cat"),
        ("a dog next to a cat", "a dog", "a cat"),
        ("a dog next to a cat", "a cat", "a dog"),
        ("a dog to the left of a cat on grass", "a cat", "a dog on grass"),
        ("a dog left of a cat on grass", "a dog", "a cat on grass"),
        ("a dog in front of a cat", "a cat", "a dog"),
        ("a photo of a dog, a cat and a bus", "a dog", "a photo of a cat and a bus"),
        ("a photo of a dog, a cat and a bus", "a cat", "a photo of a dog and a bus"),
        ("a photo of a dog, a cat and a bus", "a bus", "a photo of a dog and a cat"),
        ("a dog, a cat, a bus and a car", "a cat", "a dog, a bus and a car"),
        ("a dog, a cat, a bus and a car", "a car", "a dog, a cat and a bus"),
        ("a photograph of a dog", "a dog", "a photograph of"),
        ("a photograph of a dog on grass", "a dog", "a photograph on grass"),
        ("a dog on a sofa", "a sofa", "a dog"),
        ("a red car", "a red car", "a photograph of"),
        ("A dog and a cat", "a dog", "a cat"),
        ("a cathedral and a cat", "a cat", "a cathedral"),
        ("a photograph of a dog, a cat and a dog", "a dog", "a photograph of a cat"),
        ("a photograph of a dog and the dog on grass", "a dog", "a photograph on grass"),
        ("A Dog, a cat and THE DOG", "a dog", "a cat"),
        ("a cat, a dog and another big dog", "a dog", "a cat"),
        ("a photo of a big dog, a cat and a dog", "dog", "a photo of a cat"),
        ("a dog, a cat, a dog and a bus near the dog", "a dog", "a cat and a bus"),
        ("a red car, a cat and the red car", "a red car", "a cat"),
        ("a dog on a dog", "a dog", "a photograph of"),
        ("a dog and the dog", "a dog", "a photograph of"),
        ("a photograph of a photograph", "a photograph", "a photograph of"),
    ],
)
def test_without_phrase(prompt, phrase, rest):
    assert without_phrase(prompt, phrase) == rest


def test_without_phrase_needs_the_phrase():
    with pytest.raises(ValueError, match="'a cow'"):
        without_phrase(TWO, "a cow")


def test_encode_prompts_is_the_text_encoders_own_output_in_order(pipe):
    got = encode_prompts(pipe, [TWO, "", TWO]).hidden
    ids = pipe.tokenizer([TWO, ""], padding="max_length", return_tensors="pt").input_ids
    expected = pipe.text_encoder(ids).last_hidden_state
    assert got.shape == (3, LENGTH, WIDTH)
    torch.testing.assert_close(got, expected[[0, 1, 0]])


def test_word_embeddings_average_the_words_tokens_in_a_prompt_of_their_own(pipe):
    got = word_embeddings(pipe, ["dining table", "aeroplane"])
    table = encode_prompts(pipe, ["a photograph of a dining table"]).hidden[0, 5:7].mean(dim=0)
    plane = encode_prompts(pipe, ["a photograph of an aeroplane"]).hidden[0, 5]
    torch.testing.assert_close(got, torch.stack([table, plane]))
    assert not got.is_inference()  # it is an input of a training


# --- sampling


def test_sample_is_plain_diffusers_and_recording_changes_nothing(pipe):
    plain = pipe(
        [TWO, ONE],
        generator=[torch.Generator().manual_seed(s) for s in (3, 4)],
        num_inference_steps=3,
        guidance_scale=4.0,
        output_type="np",
    ).images
    plain = (plain * 255).round().astype(np.uint8)
    quiet = sample(pipe, [TWO, ONE], [3, 4], **CALL)
    recorded = sample(pipe, [TWO, ONE], [3, 4], words=[["dog", "dining table"], ["bus"]], **CALL)
    assert quiet.daam is None
    assert plain.std() > 10  # else the comparison means nothing
    assert np.abs(quiet.images.astype(int) - plain).max() <= 1
    assert np.abs(recorded.images.astype(int) - plain).max() <= 1
    torch.testing.assert_close(recorded.latents, quiet.latents)
    assert [tuple(m.shape) for m in recorded.daam] == [(2, 16, 16), (1, 16, 16)]


def test_a_picture_depends_on_its_prompt_and_seed_alone(pipe):
    words = [["dog", "dining table"], ["bus"], ["dog"]]
    prompts = [TWO, ONE, "a dog"]
    together = sample(pipe, prompts, [3, 4, 5], words=words, **CALL)
    for i in (2, 0):
        alone = sample(pipe, [prompts[i]], [3 + i], words=[words[i]], **CALL)
        assert np.abs(alone.images[0].astype(int) - together.images[i]).max() <= 2
        torch.testing.assert_close(alone.latents[0], together.latents[i], atol=2e-3, rtol=0)
        torch.testing.assert_close(alone.daam[0], together.daam[i], atol=1e-3, rtol=1e-3)
    other = sample(pipe, [ONE], [5], **CALL)
    assert np.abs(other.images[0].astype(int) - together.images[1]).max() > 20


@contextmanager
def inputs_seen(unet):
    """Latents and timestep of every pass of the U-Net in the block."""
    seen = []
    handle = unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[:2]))
    try:
        yield seen
    finally:
        handle.remove()


SCHEDULERS = [
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
]
SEVERAL_PASSES = (
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "PNDMScheduler",
)


@pytest.mark.parametrize("name", [*SCHEDULERS, "EulerAncestralDiscreteScheduler"])
def test_the_kept_latent_is_what_the_unet_saw_last(name):
    """Without the scheduler's own scaling, Euler's latents would be fed in units of the noise."""
    own = tiny_pipeline()
    set_scheduler(own, name)
    with inputs_seen(own.unet) as seen:
        made = sample(own, [ONE, TWO], [1, 2], **CALL)
    torch.testing.assert_close(made.latents, seen[-1][0][2:], atol=1e-6, rtol=0)
    assert made.timestep == round(float(seen[-1][1]))
    assert not made.latents.is_inference()


@pytest.mark.parametrize("name", SCHEDULERS)
def test_features_of_the_last_step_are_those_of_a_pass_of_their_own(name):
    """To the bit, and without that pass."""
    own = tiny_pipeline()
    set_scheduler(own, name)
    with inputs_seen(own.unet) as seen:
        made = sample(own, [ONE, TWO], [1, 2], features=True, **CALL)
    assert len(seen) == len(own.scheduler.timesteps)
    again = denoiser_features(own, made.latents, [ONE, TWO], made.timestep)
    assert list(made.features) == list(again)
    assert all(torch.equal(made.features[side], again[side]) for side in again)
    assert not any(kept.is_inference() for kept in made.features.values())
    assert not own.unet._forward_pre_hooks and not own.unet.conv_in._forward_hooks
    assert sample(own, [ONE], [1], **CALL).features is None


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_inputs_of_earlier_steps_are_kept(name):
    """One U-Net pass on a kept input and the scheduler's own step give the next kept input."""
    own = tiny_pipeline()
    set_scheduler(own, name)
    made = sample(own, [TWO], [5], keep=[3, 2, 1], **CALL)
    assert list(made.earlier) == [3, 2, 1]
    times = [made.earlier[step][0] for step in (3, 2, 1)]
    assert times == sorted(times, reverse=True) and times[-1] == made.timestep
    assert torch.equal(made.earlier[1][1], made.latents)
    first = torch.randn(1, 6, 16, 16, generator=torch.Generator().manual_seed(5))
    own.scheduler.set_timesteps(3)
    latents = first * own.scheduler.init_noise_sigma
    for step, time in zip((3, 2, 1), own.scheduler.timesteps, strict=True):
        given = own.scheduler.scale_model_input(latents, time)
        assert torch.allclose(made.earlier[step][1], given, atol=1e-4)
        with torch.no_grad():
            none, told = own.unet(
                torch.cat([given, given]),
                time,
                return_dict=False,
                **arguments(encode_prompts(own, ["", TWO])),
            )[0].chunk(2)
        latents = own.scheduler.step(none + 4.0 * (told - none), time, latents).prev_sample


def test_a_step_that_there_is_not_is_refused(pipe):
    with pytest.raises(ValueError, match=r"1\.\.3, counted from the last, got \[4\]"):
        sample(pipe, [ONE], [0], keep=[1, 4], **CALL)


@pytest.mark.parametrize("name", sections.SCHEDULERS)
def test_the_first_step_is_kept_or_refused(name):
    """A pass of a scheduler that makes several a step is not taken for a step."""
    own = tiny_pipeline("epsilon")  # PNDM draws with no other
    set_scheduler(own, name)
    if name in SEVERAL_PASSES:
        match = rf"keep: expected 1, .*{name}, which makes \d+ passes in 6 steps, got \[6\]"
        with pytest.raises(ValueError, match=match):
            sample(own, [ONE], [5], keep=[6], steps=6, guidance_scale=4.0)
        assert not own.unet._forward_pre_hooks
        made = sample(own, [ONE], [5], keep=[1], steps=6, guidance_scale=4.0)
        assert torch.equal(made.earlier[1][1], made.latents)
    else:
        made = sample(own, [ONE], [5], keep=[6], steps=6, guidance_scale=4.0)
        own.scheduler.set_timesteps(6)
        assert made.earlier[6][0] == round(float(own.scheduler.timesteps[0]))


def test_daam_is_the_summed_softmax_of_every_layer_head_and_step():
    """Each layer's, head's and token's map is enlarged and clamped by itself; then the means."""
    own, tokens = tiny_pipeline(), [[[8, 9], [5]], [[5]]]  # of the words below
    heats = {}  # (picture, word, token, layer, head) -> (side, side)

    def look(module, args, kwargs):
        for i, own_tokens in enumerate(tokens):
            row = 2 + i  # the conditional half follows the unconditional one
            q, k = module.to_q(args[0][row]), module.to_k(kwargs["encoder_hidden_states"][row])
            size, side = q.shape[1] // module.heads, math.isqrt(len(q))
            for head in range(module.heads):
                part = slice(head * size, (head + 1) * size)
                shares = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), dim=1)
                for j, positions in enumerate(own_tokens):
                    for token in positions:
                        key = (i, j, token, module, head)
                        heats[key] = heats.get(key, 0) + shares[:, token].reshape(side, side)

    layers = [
        m
        for name, m in own.unet.named_modules()
        if name.endswith("attn2") and not name.startswith("mid_block")
    ]  # DAAM leaves it out
    handles = [layer.register_forward_pre_hook(look, with_kwargs=True) for layer in layers]
    made = sample(own, [TWO, ONE], [1, 2], words=[["dining table", "dog"], ["bus"]], **CALL)
    for handle in handles:
        handle.remove()
    assert len(layers) == 6
    for i, maps in enumerate(made.daam):
        assert len(maps) == len(tokens[i])
        for j, got in enumerate(maps):
            expected = sum(
                functional.interpolate(heat[None, None], 16, mode="bicubic").clamp(min=0)[0, 0]
                / key[3].heads
                / len(tokens[i][j])
                for key, heat in heats.items()
                if key[:2] == (i, j)
            )
            torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)
    assert made.daam[0].std() > 0.01


def test_daam_takes_every_occurrence_of_a_word(pipe):
    weights = attention.token_weights(pipe, ["a dog near a dog and a cat"], [["dog", "cat"]])[0]
    assert weights[:, 0].nonzero().flatten().tolist() == [2, 5]
    assert weights[[2, 5], 0].tolist() == [0.5, 0.5]
    assert weights[:, 1].nonzero().flatten().tolist() == [8]


def test_a_compiled_unet_draws_with_features_and_records_uncompiled():
    """The compiler is counted, and gives each graph back as it came: seconds instead of minutes."""
    own, compiled = tiny_pipeline(), []
    plain = sample(own, [TWO], [3], words=[["dog"]], features=True, **CALL)

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    own.unet.compile_repeated_blocks(dynamic=False, backend=backend)
    drawn = sample(own, [TWO], [3], features=True, **CALL)
    first = len(compiled)
    assert first > 0
    recorded = sample(own, [TWO], [3], words=[["dog"]], features=True, **CALL)
    sample(own, [TWO], [4], features=True, **CALL)
    assert len(compiled) == first
    for made in (drawn, recorded):
        assert np.abs(made.images.astype(int) - plain.images).max() <= 1
        for side, features in plain.features.items():
            torch.testing.assert_close(made.features[side], features, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(recorded.daam[0], plain.daam[0], atol=1e-4, rtol=1e-4)


def test_recording_goes_away_after_an_error(pipe, monkeypatch):
    def fail(*_):
        raise RuntimeError("no memory")

    monkeypatch.setattr(attention.WordAttention, "add", fail)
    with pytest.raises(RuntimeError, match="no memory"):
        sample(pipe, [ONE], [1], words=[["bus"]], **CALL)  # left_as_it_was looks after it


def test_sample_refuses_what_it_cannot_do(pipe):
    for prompts, seeds, words, changes in [
        ([], [], None, {}),
        ([ONE], [1, 2], None, {}),
        ([ONE], [1], [], {}),
        ([ONE], [1], [["cat"]], {}),
        ([ONE], [1], None, {"steps": 1}),
        ([ONE], [1], None, {"guidance_scale": 1.0}),
    ]:
        with pytest.raises(ValueError):
            sample(pipe, prompts, seeds, words=words, **(CALL | changes))


# --- features

SD_V1 = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "block_out_channels": (320, 640, 1280, 1280),
}


def test_feature_channels_of_sd_v1_are_the_papers():
    """method.md 1.1: 25 maps; a half has 7680 / 7040 / 4160 / 2560 channels at 8 / 16 / 32 / 64."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD_V1)
    assert feature_channels(unet) == {8: 15360, 16: 14080, 32: 8320, 64: 5120}
    taps = [(tap.resolution, tap.channels) for tap in feature_taps(unet)]
    assert taps == [(64, 320)] * 3 + [
        (32, 320),
        (32, 640),
        (32, 640),
        (16, 640),
        (16, 1280),
        (16, 1280),
        (8, 1280),
        (8, 1280),
        (8, 1280),
        (8, 1280),
        (8, 1280),
        (8, 1280),
        (16, 1280),
        (16, 1280),
        (16, 1280),
        (32, 1280),
        (32, 640),
        (32, 640),
        (64, 640),
        (64, 320),
        (64, 320),
        (64, 320),
    ]


@pytest.fixture(scope="module")
def latents():
    return torch.randn(3, 6, 16, 16, generator=torch.Generator().manual_seed(0))


def test_features_have_the_stated_channels_and_do_not_mix_samples(pipe, latents):
    """The official code's reshape pairs one sample's unconditional half with another's."""
    prompts = [TWO, ONE, "a dog"]
    together = denoiser_features(pipe, latents, prompts, 67)
    assert list(together) == [4, 8, 16]
    assert {r: m.shape[1] for r, m in together.items()} == feature_channels(pipe.unet)
    for i, prompt in enumerate(prompts):
        alone = denoiser_features(pipe, latents[i : i + 1], [prompt], 67)
        for side, maps in together.items():
            assert maps.shape == (3, maps.shape[1], side, side)
            torch.testing.assert_close(maps[i], alone[side][0], atol=1e-3, rtol=0)


def test_features_are_the_blocks_outputs_of_each_half(pipe, latents):
    features = denoiser_features(pipe, latents, [TWO] * 3, 67)
    seen = {}
    handles = [
        pipe.unet.up_blocks[i].register_forward_hook(
            lambda module, inputs, output, i=i: seen.update({i: output})
        )
        for i in range(3)
    ]
    halves = {}
    for half, text in (("empty", ""), ("prompt", TWO)):
        pipe.unet(latents, 67, encoder_hidden_states=encode_prompts(pipe, [text] * 3).hidden)
        halves[half] = dict(seen)
    for handle in handles:
        handle.remove()
    # A level's last output, upsampled where it has an upsampler, is what its block hands on.
    for index, side, last in [
        (0, 8, slice(-40, -16)),
        (1, 16, slice(-32, -16)),
        (2, 16, slice(-8, None)),
    ]:
        channels = features[side].shape[1] // 2
        for number, half in enumerate(("empty", "prompt")):
            part = features[side][:, number * channels : (number + 1) * channels][:, last]
            torch.testing.assert_close(part, halves[half][index], atol=1e-3, rtol=0)


def test_features_can_be_trained_on(pipe, latents):
    maps = denoiser_features(pipe, latents, [TWO] * 3, 67)[16]
    layer = torch.nn.Conv2d(maps.shape[1], 2, 1)
    layer(maps).sum().backward()
    assert layer.weight.grad is not None


# --- evidence


def test_encode_images_is_the_scaled_mean_of_the_posterior(pipe):
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 * 2 - 1
    moments = pipe.vae.quant_conv(pipe.vae.encoder(pixels))
    torch.testing.assert_close(encode_images(pipe, images), moments[:, :6] * 0.8)
    with pytest.raises(ValueError, match="uint8"):
        encode_images(pipe, images.astype(np.float32))


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_add_noise_is_ddpms_forward_process_from_the_seed(name, latents):
    own = tiny_pipeline()
    set_scheduler(own, name)
    noisy = add_noise(own, latents, 250, [7, 8, 9])
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    share = torch.cumprod(1 - betas, dim=0)[250]
    noise = (noisy - share.sqrt() * latents) / (1 - share).sqrt()
    assert abs(float(noise.mean())) < 0.05 and abs(float(noise.std()) - 1) < 0.05
    again = add_noise(own, latents[1:2], 250, [8])
    assert torch.equal(again[0], noisy[1])
    started_from = torch.randn(6, 16, 16, generator=torch.Generator().manual_seed(8))
    later = add_noise(own, latents[1:2], 350, [8])
    for other in (noise[0], started_from, later[0]):
        both = torch.stack([noise[1].flatten(), other.flatten()])
        assert abs(float(torch.corrcoef(both)[0, 1])) < 0.15


@pytest.mark.parametrize(("prediction", "batch_size"), [("v_prediction", 4), ("epsilon", 64)])
def test_leave_one_out_against_a_plain_loop(prediction, batch_size, latents):
    own = tiny_pipeline(prediction)
    prompts = [TWO, ONE, "a dog"]
    phrases, left = (
        [["a dining table", "a dog"], ["a bus"], []],
        {
            "a dining table": "a photograph of a dog",
            "a dog": "a photograph of a dining table",
            "a bus": "a photograph of",
        },
    )
    got = leave_one_out(own, latents, prompts, phrases, [150, 350], [7, 8, 9], batch_size)
    again = leave_one_out(own, latents, prompts, phrases, [150, 350], [7, 8, 9], batch_size)
    shares = DDPMScheduler.from_config(own.scheduler.config).alphas_cumprod

    def v(x, text, t):
        text = encode_prompts(own, [text]).hidden
        out = own.unet(x, t, encoder_hidden_states=text).sample
        if prediction == "v_prediction":
            return out
        clean = (x - (1 - shares[t]).sqrt() * out) / shares[t].sqrt()
        return shares[t].sqrt() * out - (1 - shares[t]).sqrt() * clean

    assert [tuple(m.shape) for m in got] == [(2, 2, 16, 16), (1, 2, 16, 16), (0, 2, 16, 16)]
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))
    for i, own_phrases in enumerate(phrases):
        for j, phrase in enumerate(own_phrases):
            for k, t in enumerate([150, 350]):
                x = add_noise(own, latents[i : i + 1], t, [7 + i])
                change = v(x, prompts[i], t) - v(x, left[phrase], t)
                assert change.abs().mean() > 0.01
                torch.testing.assert_close(
                    got[i][j, k], change[0].abs().mean(dim=0), atol=1e-4, rtol=0
                )


def test_leave_one_out_of_a_word_that_stands_twice(pipe, latents):
    """Against the prompt that does not name it, at any of its places."""
    twice, rest = "a photograph of a dog, a cat and the dog", "a photograph of a cat"
    (got,) = leave_one_out(pipe, latents[:1], [twice], [["a dog", "a cat"]], [250], [7], 4)
    noisy = add_noise(pipe, latents[:1], 250, [7])
    with torch.no_grad():
        whole, left = (
            pipe.unet(noisy, 250, return_dict=False, **arguments(encode_prompts(pipe, [text])))[0]
            for text in (twice, rest)
        )
    torch.testing.assert_close(got[0, 0], (whole - left).abs().mean(1)[0], atol=1e-5, rtol=0)


def test_leave_one_out_shares_passes_and_fills_its_batches(pipe, latents, monkeypatch):
    """Two samples with 2 and 1 phrases at two timesteps: (3 + 2) x 2 = 10 passes, in 4 + 4 + 2."""
    sizes, forward = [], pipe.unet.forward
    monkeypatch.setattr(
        pipe.unet, "forward", lambda x, *a, **k: (sizes.append(len(x)), forward(x, *a, **k))[1]
    )
    leave_one_out(
        pipe,
        latents,
        [TWO, ONE, ONE],
        [["a dog", "a dining table"], ["a bus"], []],
        [150, 250],
        [1, 2, 3],
        4,
    )
    assert sizes == [4, 4, 2]
    with pytest.raises(ValueError, match="is not in the prompt"):
        leave_one_out(pipe, latents, [TWO] * 3, [["a cow"]] * 3, [150], [1, 2, 3], 4)
