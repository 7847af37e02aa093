"""Stable Diffusion 3, 3.5 and FLUX.1 at their published shapes, on torch's meta device."""

import copy
from math import isclose

import pytest
import torch

from benchmarks.published_transformers import PUBLISHED, count
from ml.cli.planning.grounding_size import grounding_size
from ml.cli.planning.known_models import DRAWINGS
from ml.diffusion.backbones.kinds import KINDS
from ml.diffusion.configurations import check_configs
from ml.diffusion.features import feature_channels, feature_taps
from ml.settings.profile import load_params

BILLIONS = {
    "stabilityai/stable-diffusion-3-medium-diffusers": 2.03,
    "stabilityai/stable-diffusion-3.5-medium": 2.24,
    "stabilityai/stable-diffusion-3.5-large": 8.06,
    "black-forest-labs/FLUX.1-dev": 11.90,
    "black-forest-labs/FLUX.1-schnell": 11.89,
}
"""Parameters of the transformer as its authors publish them."""


@pytest.mark.parametrize("model", PUBLISHED)
def test_parameters_and_channels_are_those_of_the_table_of_plan(model):
    published, known = PUBLISHED[model], DRAWINGS[model]
    networks = {part: published.network(part) for part in published.parts}
    assert known.parameters == {part: count(network) for part, network in networks.items()}
    assert isclose(known.parameters["transformer"] / 1e9, BILLIONS[model], abs_tol=0.005)
    transformer = networks["transformer"]
    side = 128
    assert known.features == feature_channels(transformer, side) == feature_channels(transformer)
    backbone = KINDS[published.pipeline].backbone
    assert known.latent == (published.parts["vae"]["latent_channels"], side, side)
    assert known.side == 8 * backbone.side(transformer) == 1024
    widths = {
        encoder: published.parts[encoder].get(
            "hidden_size", published.parts[encoder].get("d_model")
        )
        for encoder in KINDS[published.pipeline].words
    }
    assert known.text_width == sum(widths.values())


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_configurations_are_accepted(model):
    published = PUBLISHED[model]
    check_configs(published.configs(), published.pipeline)
    worse = copy.deepcopy(published.configs())
    worse["transformer"]["in_channels"] *= 2
    with pytest.raises(ValueError, match="in_channels is"):
        check_configs(worse, published.pipeline)


@pytest.mark.parametrize(
    "model", ["stabilityai/stable-diffusion-3.5-medium", "black-forest-labs/FLUX.1-dev"]
)
def test_taps_give_maps_of_the_said_shape_at_full_size(model):
    """The real class runs on the meta device: shapes without numbers."""
    published, seen = PUBLISHED[model], []
    network = published.network("transformer")
    backbone = KINDS[published.pipeline].backbone
    for tap in feature_taps(network):
        tap.module.register_forward_hook(
            lambda m, i, o, tap=tap: seen.append(tuple(backbone.feature_map(o, tap).shape))
        )
    with torch.device("meta"), torch.no_grad():
        if model.endswith("medium"):
            network(
                torch.empty(1, 16, 128, 128),
                torch.empty(1, 77 + 256, 4096),
                torch.empty(1, 2048),
                torch.empty(1),
            )
            assert seen == [(1, 1536, 64, 64)] * 4
            return
        network(
            torch.empty(1, 4096, 64),
            torch.empty(1, 512, 4096),
            torch.empty(1, 768),
            torch.empty(1),
            torch.empty(4096, 3),
            torch.empty(512, 3),
            torch.empty(1),
        )
        assert seen == [(1, 3072, 64, 64)] * 4


@pytest.mark.parametrize(
    "profile, model, module",
    [
        ("sd35", "stabilityai/stable-diffusion-3.5-medium", 17.2),
        ("flux", "black-forest-labs/FLUX.1-dev", 18.2),
    ],
)
def test_profiles_pin_a_commit_fit_the_scheduler_and_make_a_module(profile, model, module):
    params = load_params(profile)
    diffusion = params.diffusion
    parameters, kept = grounding_size(params, DRAWINGS[model])
    assert parameters / 1e6 == pytest.approx(module, abs=0.05) and kept > 0
    assert diffusion.model == model and len(diffusion.revision) == 40
    assert diffusion.scheduler == PUBLISHED[model].scheduler["_class_name"]
    assert (diffusion.variant, diffusion.dtype) == (None, "bfloat16")
