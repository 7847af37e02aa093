"""The grounding module against independent truth: sizes, batches, probabilities, gradients."""

import dataclasses
import json

import pytest
import torch

from ml.grounding.config import GroundingConfig, make_config
from ml.grounding.fusion import GAIN, apply_prior, evidence_prior, pooling_weights
from ml.grounding.module import GroundingModule, masks_from_logits, probabilities
from ml.settings.profile import load_params
from tests.builders.authors import Authors, Block, give_weights

CHANNELS = {4: 24, 8: 16, 16: 8}
PARAMS = dataclasses.replace(load_params().grounding, width=32, layers=2, heads=4)


def make_module(variant: str) -> GroundingModule:
    torch.manual_seed(0)
    return GroundingModule(make_config(PARAMS, CHANNELS, 12, 64, 60, variant)).eval()


def make_inputs(batch: int, words: int, seed: int = 0):
    torch.manual_seed(seed)
    features = {r: torch.randn(batch, c, r, r) for r, c in CHANNELS.items()}
    return (
        features,
        torch.randn(batch, words, 12),
        torch.ones(batch, words, dtype=torch.bool),
        torch.rand(batch, words, 3, 16, 16),
    )


def test_full_size_has_the_papers_parameters():
    """18.8 M, counted from the authors' layers in method.md 1.2 to 1.4, not from this code."""
    # 18,795,760 before the blocks' convolutions had the authors' biases, 2 x (48 + 112 + 240)
    encoder = 15360 * 16 + 14080 * 32 + 8320 * 64 + 5120 * 128
    encoder += sum(2 * (9 * c * c + c) for c in (48, 112, 240))
    decoder = 3 * (8 * 512 * 512 + 2 * 512 * 2048 + 2048 + 512 + 3 * 2 * 512)
    rest = 3840 * 512 + 768 * 512 + 2 * (512 * 512 + 512) + 512 * 240 + 240
    full = dataclasses.replace(PARAMS, width=512, layers=3, heads=8)
    config = make_config(full, {8: 15360, 16: 14080, 32: 8320, 64: 5120}, 768, 512, 1, "paper")
    with torch.device("meta"):
        module = GroundingModule(config)
        features = {r: torch.empty(1, c, r, r) for r, c in config.feature_channels.items()}
        logits = module(features, torch.empty(1, 2, 768), torch.ones(1, 2, dtype=torch.bool))
        fused = module.encoder(features)
    assert fused.shape == (1, 240, 64, 64)
    assert logits.shape == (1, 2, 512, 512)
    count = sum(p.numel() for p in module.parameters())
    assert count == encoder + decoder + rest == 18_796_560


@pytest.mark.parametrize("words", [1, 3])
def test_outputs_are_the_authors_at_batch_1_and_each_pictures_own_at_batch_2(words):
    """Four resolutions at an eighth of the picture and patches of 4, as in SD-v1, at small widths.
    The second implementation is made of torch's own layers (`tests.builders.authors`)."""
    channels = {4: 20, 8: 16, 16: 12, 32: 8}
    config = dataclasses.replace(
        make_config(PARAMS, channels, 12, 256, 1, "paper"),
        encoder_widths=(4, 8, 12, 16),
        patch=4,
        pixel_width=40,
    )
    torch.manual_seed(3)
    theirs = Authors(
        channels, [4, 8, 12, 16], 12, PARAMS.width, PARAMS.layers, PARAMS.heads, 4, 256
    )
    for parameter in theirs.parameters():  # biases and norms away from where they start
        parameter.data += 0.1 * torch.randn_like(parameter)
    ours = GroundingModule(config)
    give_weights(theirs, ours)
    features = {r: torch.randn(2, c, r, r) * 5 + 2 for r, c in channels.items()}
    text = torch.randn(2, words, 12)
    with torch.no_grad():
        expected = torch.stack(
            [theirs({r: f[i : i + 1] for r, f in features.items()}, text[i]) for i in range(2)]
        )
        valid = torch.ones(2, words, dtype=torch.bool)
        for mode in (ours.eval(), ours.train()):
            alone = mode({r: f[:1] for r, f in features.items()}, text[:1], valid[:1])
            torch.testing.assert_close(alone[0], expected[0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(mode(features, text, valid), expected, atol=1e-4, rtol=1e-4)
    assert expected.std() > 0.1


def test_one_resolution_passes_the_authors_block_and_one_saved_without_it_stays_so(tmp_path):
    module = GroundingModule(make_config(PARAMS, {16: 24}, 12, 64, 60, "paper")).eval()
    own = module.encoder.blocks[0]
    block = Block(PARAMS.width // 2)
    for ours, theirs in ((own.conv1, block.conv1), (own.conv2, block.conv2)):
        theirs.load_state_dict(
            {"weight": ours.parametrizations.weight.original, "bias": ours.bias}, strict=False
        )
        norm = ours.parametrizations.weight[0]
        norm._u.data, norm._v.data = theirs.settle()
    given = {16: torch.randn(1, 24, 16, 16) * 5 + 2}
    with torch.no_grad():
        reduced = torch.nn.functional.conv2d(given[16], module.encoder.reduce[0].weight)
        torch.testing.assert_close(module.encoder(given), block(reduced), atol=1e-4, rtol=1e-4)
    without = GroundingModule(dataclasses.replace(module.config, lone_block=False))
    without.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["lone_block"]  # before it was a field
    (tmp_path / "config.json").write_text(json.dumps(saved))
    before = GroundingModule.from_pretrained(tmp_path)
    assert not before.config.lone_block and len(before.encoder.blocks) == 0
    with pytest.raises(ValueError, match="lone_block is of features of one resolution"):
        dataclasses.replace(make_config(PARAMS, CHANNELS, 12, 64, 60), lone_block=True)


def test_the_papers_layers_start_as_copies_with_the_authors_bounds():
    torch.manual_seed(0)
    own = GroundingModule(make_config(PARAMS, CHANNELS, 12, 64, 60, "paper"))
    first, *others = (layer.state_dict() for layer in own.layers)
    assert others and all(
        torch.equal(first[name], other[name]) for other in others for name in first
    )
    torch.manual_seed(0)
    torchs = torch.nn.MultiheadAttention(PARAMS.width, PARAMS.heads, bias=False)
    for name in ("self_attention", "cross_attention"):
        stacked = torch.cat([first[f"{name}.{part}.weight"] for part in "qkv"])
        for ours, theirs in (
            (stacked, torchs.in_proj_weight),
            (first[f"{name}.out.weight"], torchs.out_proj.weight),
        ):
            assert ours.abs().max() == pytest.approx(theirs.abs().max().item(), rel=0.02)
            assert ours.std() == pytest.approx(theirs.std().item(), rel=0.05)


def test_a_config_from_before_the_parts_is_read_as_what_it_was(tmp_path):
    """GroupNorm, no biases, scaled logits, standardised features: both variants were that."""
    new = {"normalisation", "biased_blocks", "standardised", "scaled_logits", "lone_block"}
    make_module("paper").save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    saved = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in saved.items() if k not in new}))
    old = GroundingConfig.load(file)
    module = GroundingModule(old)
    assert (old.normalisation, old.biased_blocks, old.standardised) == ("group", False, True)
    assert isinstance(module.encoder.blocks[0].norm1, torch.nn.GroupNorm)
    assert "encoder.blocks.0.conv1.bias" not in module.state_dict()
    text, valid = torch.randn(1, 1, 12), torch.ones(1, 1, dtype=torch.bool)
    bare = GroundingModule(dataclasses.replace(old, scaled_logits=False))
    bare.load_state_dict(module.state_dict())
    with torch.no_grad():
        logits, unscaled = (m.eval()(make_inputs(1, 1)[0], text, valid) for m in (module, bare))
    torch.testing.assert_close(logits, unscaled * old.pixel_width**-0.5)
    for damaged in (
        {k: v for k, v in saved.items() if k != "scaled_logits"},
        saved | {"dropout": 0.1},
    ):
        file.write_text(json.dumps(damaged))
        with pytest.raises(ValueError, match=r"config\.json.*(scaled_logits|dropout)"):
            GroundingConfig.load(file)


@pytest.mark.parametrize("variant", ["paper", "seeded"])
def test_a_sample_does_not_see_its_batch_or_padding(variant):
    module = make_module(variant)
    features, text, valid, evidence = make_inputs(3, 2)
    with torch.no_grad():
        alone = module({r: f[:1] for r, f in features.items()}, text[:1], valid[:1], evidence[:1])
        wide = torch.randn(3, 4, 12)
        wide[:, :2] = text
        padded = torch.cat([valid, torch.zeros_like(valid)], dim=1)
        noise = torch.rand(3, 4, 3, 16, 16)
        noise[:, :2] = evidence
        among = module(features, wide, padded, noise)
    shown = alone.shape[1]
    assert torch.allclose(alone[0], among[0, :shown], atol=1e-5)
    assert (probabilities(among, module.config)[:, 2:] == 0).all()
    assert not masks_from_logits(among, module.config)[:, 2:].any()


def test_competition_shares_each_pixel():
    module = make_module("seeded")
    with torch.no_grad():
        logits = module(*make_inputs(2, 3))
    assert logits.shape == (2, 4, 64, 64)
    shares = logits.softmax(1)
    words = probabilities(logits, module.config)
    assert torch.allclose(words.sum(1) + shares[:, 0], torch.ones(2, 64, 64), atol=1e-5)
    assert masks_from_logits(logits, module.config).sum(1).max() <= 1


def test_sigmoids_are_independent():
    module = make_module("paper")
    logits = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert masks_from_logits(logits, module.config).all()
    assert probabilities(logits, module.config)[0, 1, 0, 0] == pytest.approx(0.731059, abs=1e-5)


def test_masks_of_hand_made_competition():
    config = make_module("seeded").config
    logits = torch.tensor([[3.0, 0.0, 0.0], [1.0, 2.0, 0.0], [0.0, 1.0, 2.0]])  # pixel x label
    masks = masks_from_logits(logits.T.reshape(1, 3, 1, 3), config)
    assert masks[0, :, 0].tolist() == [[False, True, False], [False, False, True]]


@pytest.mark.parametrize("variant", ["paper", "seeded"])
def test_gradient_reaches_every_parameter(variant):
    module = make_module(variant).train()
    module(*make_inputs(2, 2)).square().mean().backward()
    dead = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # What normalisation over a picture takes away again; the authors have it too.
    unfelt = (
        []
        if variant == "seeded"
        else ["encoder.blocks.0.conv1.bias", "encoder.blocks.1.conv1.bias"]
    )
    assert [name for name in dead if name not in unfelt] == []


def test_pooling_prefers_the_word_that_answers_more():
    evidence = torch.zeros(1, 2, 1, 16, 16)
    evidence[0, 0, 0, 2, 2], evidence[0, 0, 0, 9, 9] = 1.0, 0.5
    evidence[0, 1, 0, 9, 9] = 4.0
    weights = pooling_weights(evidence, torch.ones(1, 2, dtype=torch.bool), 16).view(1, 2, 16, 16)
    assert weights.sum((-2, -1)) == pytest.approx(torch.ones(1, 2).numpy(), abs=1e-5)
    # normalised, (9,9) is 0.5 for word 0 and 1 for word 1: shares 0.2 and 0.8 of it by squares,
    # so 0.5 * 0.2 = 0.1 against a peak of 1, cubed 0.001
    assert (weights[0, 0, 9, 9] / weights[0, 0, 2, 2]).item() == pytest.approx(0.001, rel=1e-3)
    assert weights[0, 1, 9, 9] > 0.999


def test_evidence_decides_which_word_a_place_belongs_to():
    """Two words, evidence 1 : 0.2 on the left and 0 : 1 on the right; FLOOR is 0.05."""
    maps = torch.tensor([[[[[1.0, 0.0]]], [[[0.2, 1.0]]], [[[9.0, 9.0]]]]]).expand(-1, -1, 2, 2, -1)
    prior = evidence_prior(maps, torch.tensor([[True, True, False]]), 2)
    shares = (prior / GAIN).exp()
    expected = torch.tensor([[1.05 / 1.30, 0.05 / 1.10], [0.25 / 1.30, 1.05 / 1.10], [0.0, 0.0]])
    torch.testing.assert_close(shares[0, :, 0], expected)
    torch.testing.assert_close(shares[0, :, 1], expected)

    words = torch.tensor([2.0, 3.0, -1e4])[None, :, None, None].expand(1, 3, 2, 2)
    weighed = apply_prior(words, prior)
    assert (weighed[0, 0, :, 0] > weighed[0, 1, :, 0]).all(), "the evidence is for the first here"
    assert (weighed[0, 0, :, 1] < weighed[0, 1, :, 1]).all()
    torch.testing.assert_close(weighed.logsumexp(1), words.logsumexp(1))
    alone = evidence_prior(maps, torch.tensor([[True, False, False]]), 2)
    torch.testing.assert_close(apply_prior(words[:, :1], alone[:, :1]), words[:, :1])


def test_flat_evidence_pools_evenly():
    weights = pooling_weights(torch.zeros(1, 1, 2, 16, 16), torch.ones(1, 1, dtype=torch.bool), 16)
    assert torch.allclose(weights, torch.full_like(weights, 1 / 256))


@pytest.mark.parametrize("variant", ["paper", "seeded"])
def test_saved_module_is_the_same(tmp_path, variant):
    module = make_module(variant)
    module.encoder.fit_scales([make_inputs(2, 1, seed=5)[0]])
    module.save_pretrained(tmp_path)
    again = GroundingModule.from_pretrained(tmp_path)
    assert again.config == module.config
    inputs = make_inputs(1, 2)
    with torch.no_grad():
        assert torch.equal(module(*inputs), again(*inputs))


def test_scales_batch_by_batch_are_those_of_all():
    """At full size the features of 64 pictures are 8 GB."""
    whole, parts = make_module("seeded").encoder, make_module("seeded").encoder
    features = {r: f * 30 + 5 for r, f in make_inputs(7, 1)[0].items()}
    whole.fit_scales([features])
    parts.fit_scales(
        {r: f[cut] for r, f in features.items()} for cut in (slice(0, 3), slice(3, 4), slice(4, 7))
    )
    for r, a, b in zip(CHANNELS, whole.scales, parts.scales, strict=True):
        assert torch.equal(a.mean, features[r].mean((0, 2, 3)))
        assert torch.equal(a.std, features[r].std((0, 2, 3)))
        torch.testing.assert_close(a.mean, b.mean)
        torch.testing.assert_close(a.std, b.std)
    one = 4 * sum(c * r * r for r, c in CHANNELS.items())
    assert [whole.pictures_within(limit) for limit in (1, 2 * one, 3 * one - 1)] == [1, 2, 2]


def test_errors_say_what_to_do(tmp_path):
    module = make_module("seeded")
    with pytest.raises(ValueError, match="expects evidence"):
        module(*make_inputs(1, 1)[:3])
    with pytest.raises(ValueError, match="grounding_model"):
        GroundingModule.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="power of 2"):
        make_config(PARAMS, CHANNELS, 12, 48, 60)
    with pytest.raises(ValueError, match="multiple"):
        GroundingConfig(**(vars(module.config) | {"heads": 5}))
