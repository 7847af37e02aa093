"""The grounding module on diffusion transformers: one resolution of features, drawn and given
pictures, saved folders."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ml.diffusion.features import feature_channels
from ml.diffusion.loading import latent_shape
from ml.diffusion.tokens import text_width
from ml.errors import NotFinite
from ml.grounding import features
from ml.grounding.config import make_config
from ml.grounding.engine import GroundingEngine
from ml.grounding.features import FeatureSource
from ml.grounding.module import GroundingModule
from ml.grounding.pipeline import GroundedDiffusionPipeline
from tests.builders.grounded import PARAMS
from tests.builders.tiny_flow import tiny_flow

PROMPTS = ["a dog and a cat on grass", "a dog"]
WORDS = [["dog", "cat"], ["dog"]]
CALL = {"seeds": [3, 4], "steps": 3, "guidance_scale": 4.0}


def module_of(pipe, variant):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        channels = feature_channels(pipe.transformer, latent_shape(pipe)[-1])
        config = make_config(PARAMS, channels, text_width(pipe), 64, 60, variant)
        return GroundingModule(config)


def tiny(name):
    pipe = tiny_flow(name)
    pipe.t5_tokens = 32
    return pipe


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
@pytest.mark.parametrize("variant", ["seeded", "paper"])
def test_words_are_masked_in_drawn_and_given_pictures(name, variant):
    pipe = tiny(name)
    pipe.distilled_guidance = 4.0
    engine = GroundingEngine(pipe, module_of(pipe, variant), 2)
    made = engine.draw(PROMPTS, WORDS, **CALL)
    assert made.images.shape == (2, 64, 64, 3)
    assert [m.shape for m in made.masks] == [(2, 64, 64), (1, 64, 64)]
    for soft in made.probabilities:
        assert np.isfinite(soft).all() and soft.std() > 0
    alone = engine.draw(PROMPTS[1:], WORDS[1:], seeds=[4], steps=3, guidance_scale=4.0)
    assert np.allclose(alone.probabilities[0], made.probabilities[1], atol=2e-3)
    found = engine.ground(made.images, WORDS, PROMPTS, min_presence=0.0 if name == "sd3" else None)
    assert [m.shape for m in found.masks] == [(2, 64, 64), (1, 64, 64)]


def test_a_module_of_one_resolution_has_a_block_and_the_full_width():
    pipe = tiny("flux-schnell")
    config = module_of(pipe, "seeded").config
    assert config.feature_channels == {8: 4 * 32} and len(config.encoder_widths) == 1
    assert config.encoder_widths == (PARAMS.width // 2,)
    assert (config.upsampling, config.learned_doublings, config.patch) == (8, 3, 1)
    module = module_of(pipe, "paper")
    assert len(module.encoder.blocks) == 1
    given = {8: torch.randn(2, 128, 8, 8)}
    text, valid = torch.randn(2, 1, text_width(pipe)), torch.ones(2, 1, dtype=torch.bool)
    logits = module(given, text, valid, None)
    logits.sum().backward()  # every weight of the module is used
    unused = [name for name, p in module.named_parameters() if p.grad is None]
    assert unused == []


@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_a_saved_pipeline_draws_and_masks_as_before(name, tmp_path):
    pipe = tiny(name)
    if name == "flux-dev":
        pipe.distilled_guidance = 6.0
    before = GroundedDiffusionPipeline(pipe, module_of(pipe, "seeded"), 2, 3, 4.0)
    before.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "pipeline.json").read_text())
    assert written["scheduler"] == "FlowMatchEulerDiscreteScheduler" and written["t5_tokens"] == 32
    after = GroundedDiffusionPipeline.from_pretrained(tmp_path)
    assert after.pipe.t5_tokens == 32 and after.pipe.default_sample_size == 16
    assert getattr(after.pipe, "distilled_guidance", None) == (6.0 if name == "flux-dev" else None)
    call = {"entities": WORDS[0], "seed": 5, "output_type": "np"}
    one, two = (own(PROMPTS[0], **call) for own in (before, after))
    assert np.abs(one.images - two.images).max() <= 1.01 / 255
    for word in WORDS[0]:
        assert np.allclose(one.probabilities[0][word], two.probabilities[0][word], atol=2e-3)
    (tmp_path / "pipeline.json").write_text(json.dumps(written | {"t5_tokens": 0}))
    with pytest.raises(
        ValueError, match="pipeline.json: t5_tokens: expected a whole number 1..512"
    ):
        GroundedDiffusionPipeline.from_pretrained(tmp_path)


def test_the_guidance_of_a_call_is_what_the_model_takes():
    for name, scale, said in (
        ("sd3", 1.0, "expected a number above 1"),
        ("flux-schnell", 5.0, "this model takes no guidance: leave it out"),
        ("flux-dev", 0.5, None),
        ("flux-dev", 101, "expected a number from 0 to 100"),
    ):
        pipe = tiny(name)
        pipe.distilled_guidance = 4.0
        own = GroundedDiffusionPipeline(pipe, module_of(pipe, "paper"), 1, 2, 4.0)
        if said is None:
            assert own("a dog", ["dog"], guidance_scale=scale, seed=0).images
        else:
            with pytest.raises(ValueError, match=f"guidance_scale: {said}"):
                own("a dog", ["dog"], guidance_scale=scale, seed=0)


def test_a_folder_from_before_these_settings_opens(tmp_path):
    pipe = tiny_flow("sd3")
    GroundedDiffusionPipeline(pipe, module_of(pipe, "paper"), 2, 3, 4.0).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "pipeline.json").read_text())
    assert "t5_tokens" not in written and "distilled_guidance" not in written
    after = GroundedDiffusionPipeline.from_pretrained(tmp_path)
    assert getattr(after.pipe, "t5_tokens", None) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_features_beyond_float16_are_kept_in_the_dtype_of_the_pass(dtype):
    """A transformer's residual stream grows; of a U-Net they are refused."""
    pipe = tiny("sd3").to(dtype)
    pipe.transformer.pos_embed.proj.weight.data.mul_(1e7)
    latent = np.random.default_rng(0).normal(size=(4, 16, 16)).astype(np.float32)
    sample = SimpleNamespace(latent=latent, timestep=60, text="a dog")
    (made,) = FeatureSource(pipe, [sample])._compute([0]).values()
    assert made.dtype == dtype and made.isfinite().all() and made.abs().max() > 65_504


def test_features_of_a_transformer_in_float16_name_the_dtypes_that_hold_them(monkeypatch):
    pipe = tiny("sd3")
    infinite = {8: torch.tensor([1.0, torch.inf]).half()}
    monkeypatch.setattr(features, "denoiser_features", lambda *asked: infinite)
    latent = np.zeros((4, 16, 16), np.float32)
    sample = SimpleNamespace(latent=latent, timestep=60, text="a dog")
    said = "kept in float16 for diffusion.dtype float16.*set diffusion.dtype to bfloat16 or float32"
    with pytest.raises(NotFinite, match=said):
        FeatureSource(pipe, [sample])._compute([0])
