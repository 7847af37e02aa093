"""Pictures and features of diffusion transformers against plain diffusers, attention by hand."""

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from torch.nn import functional

from ml.baselines.ovam_attention import AttributionAttention
from ml.diffusion.attention import recording
from ml.diffusion.backbones import flux
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.features import denoiser_features, feature_channels
from ml.diffusion.loading import latent_shape, picture_size
from ml.diffusion.sampling import sample
from ml.diffusion.tokens import all_positions
from tests.builders.tiny_flow import KINDS, tiny_flow

PROMPT = "a photograph of a dog and a cat on grass"
CALL = {"steps": 4, "guidance_scale": 4.0}
T5_TOKENS = 32  # diffusers' own 256 and 512 would be most of the time of these tests


@pytest.fixture(scope="module", params=KINDS)
def pipe(request):
    made = tiny_flow(request.param)
    made.distilled_guidance, made.t5_tokens = CALL["guidance_scale"], T5_TOKENS
    return made


@pytest.fixture(autouse=True)
def left_as_it_was(request):
    """No hook and no recording processor may outlive a call."""
    yield
    if "pipe" in request.fixturenames:
        network = request.getfixturevalue("pipe").transformer
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
        kinds = {type(p).__name__ for p in network.attn_processors.values()}
        assert kinds <= {"JointAttnProcessor2_0", "AttnProcessor2_0", "FluxAttnProcessor"}


@pytest.fixture(scope="module")
def drawn(pipe):
    return sample(
        pipe, [PROMPT, "a dog"], [7, 8], words=[["dog", "cat"], ["dog"]], features=True, **CALL
    )


def plain(pipe, prompt, seed):
    """The pixels of diffusers' own pipeline, uint8 (H,W,3)."""
    picture = pipe(
        prompt=prompt,
        num_inference_steps=CALL["steps"],
        guidance_scale=CALL["guidance_scale"],
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        max_sequence_length=T5_TOKENS,
    ).images[0]
    return (picture * 255).round().astype(np.uint8)


def test_pictures_are_those_of_plain_diffusers(pipe, drawn):
    assert drawn.images.shape == (2, *picture_size(pipe), 3) == (2, 64, 64, 3)
    for image, prompt, seed in zip(drawn.images, (PROMPT, "a dog"), (7, 8), strict=True):
        far = np.abs(image.astype(int) - plain(pipe, prompt, seed))
        assert far.max() <= 1 and (far > 0).mean() < 0.01
    assert image.std() > 20 and np.abs(drawn.images[0].astype(int) - drawn.images[1]).mean() > 5


def test_features_are_those_of_the_last_step(pipe, drawn):
    """At that step's own time, which a schedule with a shift puts between two whole numbers; at the
    whole number that is kept they are nearly the same."""
    assert {side: maps.shape[1] for side, maps in drawn.features.items()} == feature_channels(
        pipe.transformer, latent_shape(pipe)[-1]
    )
    exact = float(pipe.scheduler.timesteps[-1])
    assert drawn.timestep == round(exact)
    again = denoiser_features(pipe, drawn.latents, [PROMPT, "a dog"], exact)
    whole = denoiser_features(pipe, drawn.latents, [PROMPT, "a dog"], drawn.timestep)
    for side, maps in drawn.features.items():
        assert torch.allclose(maps, again[side], rtol=1e-4, atol=1e-5)
        assert (maps - whole[side]).norm() < 0.03 * maps.norm()


def test_features_do_not_depend_on_neighbours(pipe, drawn):
    alone = denoiser_features(pipe, drawn.latents[1:], ["a dog"], drawn.timestep)
    both = denoiser_features(pipe, drawn.latents, [PROMPT, "a dog"], drawn.timestep)
    for side in alone:
        assert torch.allclose(alone[side][0], both[side][1], atol=1e-5)


def test_features_are_the_picture_tokens_of_four_blocks_and_the_last(pipe, drawn):
    """By the text alone: half of the channels under guidance are of the empty text."""
    network, seen = pipe.transformer, {}
    blocks = [*network.transformer_blocks, *getattr(network, "single_transformer_blocks", ())]
    assert len(blocks) == 5
    handles = [
        block.register_forward_hook(lambda m, i, o, at=at: seen.__setitem__(at, o[1]))
        for at, block in enumerate(blocks)
    ]
    (maps,) = denoiser_features(pipe, drawn.latents, [PROMPT, "a dog"], drawn.timestep).values()
    for handle in handles:
        handle.remove()
    width, halves = 32, 1 if isinstance(pipe, FluxPipeline) else 2
    assert maps.shape == (2, halves * 4 * width, 8, 8)
    for place, at in enumerate((0, 1, 2, 4)):
        tokens = seen[at]  # (halves * 2, 64, 32), the empty texts first
        assert tokens.shape == (halves * 2, 64, width)
        for half in range(halves):
            start = (half * 4 + place) * width
            own = maps[1, start : start + width]
            assert torch.equal(own[:, 3, 5], tokens[half * 2 + 1, 3 * 8 + 5])


def test_a_picture_depends_on_its_own_prompt_and_seed(pipe, drawn):
    alone = sample(pipe, ["a dog"], [8], **CALL)
    assert np.abs(alone.images[0].astype(int) - drawn.images[1]).max() <= 1
    with pytest.raises(ValueError, match="steps of 1..4"):
        sample(pipe, ["a dog"], [8], keep=[5], **CALL)


def test_earlier_steps_and_a_callback(pipe):
    seen = []

    def look(own, step, timestep, tensors):
        seen.append((step, float(timestep), tensors["latents"].clone()))
        return tensors

    made = sample(pipe, ["a dog"], [8], keep=[4, 2], callback=look, **CALL)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(8))
    assert torch.equal(made.earlier[4][1], noise) and made.earlier[4][0] == 999
    assert made.earlier[2][0] == round(seen[2][1])
    left = seen[1][2]  # of the pipeline's own kind: FLUX has its latents packed
    if isinstance(pipe, FluxPipeline):
        left = pipe._unpack_latents(left, 64, 64, 2 * 2)
    assert torch.equal(made.earlier[2][1], left.float())


# --- FLUX's packing


def test_packed_latents_are_diffusers_own():
    latents = torch.randn(2, 4, 16, 16)
    packed = FluxPipeline._pack_latents(latents, 2, 4, 16, 16)
    assert packed.shape == (2, 64, 16)
    assert torch.equal(flux._unpacked(packed, 16, 16), latents)
    assert torch.equal(
        flux._unpacked(packed, 16, 16), FluxPipeline._unpack_latents(packed, 64, 64, 4)
    )


def test_the_guidance_that_is_told_reaches_the_passes_of_a_distilled_model(drawn, pipe):
    if not isinstance(pipe, FluxPipeline):
        pytest.skip("guidance by halves")
    told = denoiser_features(pipe, drawn.latents, [PROMPT, "a dog"], drawn.timestep)[8]
    pipe.distilled_guidance = 1.5
    other = denoiser_features(pipe, drawn.latents, [PROMPT, "a dog"], drawn.timestep)[8]
    pipe.distilled_guidance = CALL["guidance_scale"]
    assert torch.equal(told, other) is not pipe.transformer.config.guidance_embeds


def test_features_are_of_the_guidance_that_the_passes_are_told(pipe):
    """A drawing with another guidance than the profile's has them by a pass of the profile's, which
    evidence and trainings are told too."""
    if not getattr(pipe.transformer.config, "guidance_embeds", False):
        pytest.skip("no guidance is told")
    told = []
    look = pipe.transformer.register_forward_pre_hook(
        lambda module, inputs, named: told.append(named["guidance"].tolist()), with_kwargs=True
    )
    made = sample(pipe, ["a dog"], [8], features=True, steps=2, guidance_scale=2.0)
    look.remove()
    assert told == [[2.0], [2.0], [CALL["guidance_scale"]]]
    again = denoiser_features(pipe, made.latents, ["a dog"], made.timestep)[8]
    assert torch.equal(made.features[8], again)


def test_the_range_of_guidance_is_the_kinds(pipe):
    def drawn_with(scale):
        return sample(pipe, ["a dog"], [8], steps=2, guidance_scale=scale).images

    strange = [float("nan"), float("inf"), -1.0]
    if not isinstance(pipe, FluxPipeline):
        said, refused = "above 1, because both halves of the guided batch", [1.0, 0.5, *strange]
    elif pipe.transformer.config.guidance_embeds:
        said, refused = "0 or more", strange
        assert not np.array_equal(drawn_with(0.0), drawn_with(1.0))
    else:
        said, refused = "takes no guidance: leave it out.*expected 4, .*, got 3", [3.0]
    for scale in refused:
        with pytest.raises(ValueError, match=f"guidance_scale: .*{said}"):
            drawn_with(scale)


# --- DAAM over joint attention


def by_hand(attention, given, turned):
    """Softmax over all tokens, of what the layer was given: float64 (B,heads,N,L), the text's."""
    pixels, text = given["hidden_states"], given["encoder_hidden_states"]

    def heads(linear, norm, tokens):
        out = functional.linear(tokens, linear.weight, linear.bias)
        out = out.reshape(*out.shape[:2], 4, 8)  # (B,N,heads,d)
        if norm is not None:  # root mean square
            mean = out.square().mean(-1, keepdim=True)
            out = out / (mean + norm.eps).sqrt() * norm.weight
        return out.double()

    query = turned(heads(attention.to_q, attention.norm_q, pixels))
    key = torch.cat(
        [
            heads(attention.add_k_proj, attention.norm_added_k, text),
            turned(heads(attention.to_k, attention.norm_k, pixels)),
        ],
        dim=1,
    )
    scores = torch.einsum("bnhd,bmhd->bhnm", query, key) / 8**0.5
    return scores.softmax(-1)[..., : text.shape[1]]


def rotated(tokens):
    """FLUX's rotary embedding of an 8x8 grid, as complex numbers; axes of 2, 2 and 4 channels of
    which the first is always 0. (B,64,heads,8)."""
    row, column = torch.arange(64) // 8, torch.arange(64) % 8
    angles = torch.stack(
        [torch.zeros(64), row.double(), column.double(), column.double() / 100], dim=1
    )  # 10000^(-2/4) is 1/100
    pairs = torch.view_as_complex(tokens.unflatten(-1, (4, 2)).contiguous())
    turned = pairs * torch.polar(torch.ones(64, 4).double(), angles.double())[None, :, None]
    return torch.view_as_real(turned).flatten(-2)


def test_daam_over_joint_attention_by_hand(pipe, drawn):
    is_flux = isinstance(pipe, FluxPipeline)
    layers = [block.attn for block in pipe.transformer.transformer_blocks]
    sums = {}

    def look(attention, args, given):
        shares = by_hand(attention, given, rotated if is_flux else lambda tokens: tokens)
        sums[attention] = sums.get(attention, 0) + shares[-2:]

    handles = [a.register_forward_pre_hook(look, with_kwargs=True) for a in layers]
    again = sample(pipe, [PROMPT, "a dog"], [7, 8], **CALL)
    for handle in handles:
        handle.remove()
    assert np.array_equal(again.images, drawn.images)  # recording changes no picture
    assert [own.shape for own in drawn.daam] == [(2, 16, 16), (1, 16, 16)]
    for i, (prompt, words) in enumerate(((PROMPT, ["dog", "cat"]), ("a dog", ["dog"]))):
        for j, word in enumerate(words):
            (places,) = all_positions(pipe, prompt, word, words)
            expected = torch.zeros(16, 16)
            for shares in sums.values():
                grids = shares[i][..., places].permute(0, 2, 1).unflatten(-1, (8, 8)).float()
                large = functional.interpolate(grids, (16, 16), mode="bicubic").clamp(min=0)
                expected += large.mean((0, 1))
            assert torch.allclose(drawn.daam[i][j], expected, rtol=1e-3, atol=1e-5)
            assert expected.std() > 1e-5


def test_ovam_needs_a_cross_attention(pipe):
    recorder = object.__new__(AttributionAttention)
    with pytest.raises(ValueError, match="reads the cross-attention of a U-Net, and .*Pipeline"):
        with recording(pipe, recorder):
            raise AssertionError("the recorder was taken")


# --- texts


def test_texts_are_encoded_as_diffusers_does(pipe):
    encoded = encode_prompts(pipe, [PROMPT, "", PROMPT])
    if isinstance(pipe, FluxPipeline):
        hidden, pooled, _ = pipe.encode_prompt(PROMPT, None, max_sequence_length=T5_TOKENS)
        _, none, _ = pipe.encode_prompt("", None)
    else:
        hidden, empty, pooled, none = pipe.encode_prompt(
            PROMPT, None, None, negative_prompt="", max_sequence_length=T5_TOKENS
        )
        assert torch.allclose(encoded.hidden[1], empty[0], atol=1e-5)
    assert torch.allclose(encoded.hidden[[0]], hidden, atol=1e-5)
    assert torch.allclose(encoded.hidden[[2]], hidden, atol=1e-5)
    assert torch.allclose(encoded.pooled, torch.cat([pooled, none, pooled]), atol=1e-5)
    assert encoded.time_ids is None


def test_the_number_of_tokens_that_t5_reads(pipe):
    encoded = encode_prompts(pipe, ["a dog"])
    pipe.t5_tokens = None
    whole = encode_prompts(pipe, ["a dog"])
    pipe.t5_tokens = T5_TOKENS
    clip = 0 if isinstance(pipe, FluxPipeline) else 24
    most = 512 if isinstance(pipe, FluxPipeline) else 256
    assert encoded.hidden.shape[1] == clip + T5_TOKENS and whole.hidden.shape[1] == clip + most
    assert torch.equal(encoded.pooled, whole.pooled)
