"""A tiny diffusion model with an untrained grounding module, as the stages and as users have it."""

import dataclasses

import torch

from ml.diffusion.features import feature_channels
from ml.grounding.config import make_config
from ml.grounding.engine import GroundingEngine
from ml.grounding.module import GroundingModule
from ml.grounding.pipeline import GroundedDiffusionPipeline
from ml.settings.profile import load_params
from tests.builders.tiny import tiny_pipeline

PARAMS = dataclasses.replace(
    load_params().grounding, width=32, layers=1, heads=2, evidence_timesteps=[200, 400]
)


def make_module(pipe, variant: str = "seeded") -> GroundingModule:
    """An untrained module that fits a pipeline of 64 pixels; the same weights at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        width = pipe.text_encoder.config.hidden_size
        config = make_config(PARAMS, feature_channels(pipe.unet), width, 64, 60, variant)
        return GroundingModule(config)


def make_engine(variant: str = "seeded", batch_size: int = 2) -> GroundingEngine:
    pipe = tiny_pipeline()
    return GroundingEngine(pipe, make_module(pipe, variant), batch_size)


def make_pipeline(variant: str = "seeded", batch_size: int = 2) -> GroundedDiffusionPipeline:
    """With 3 steps and guidance 3 by default."""
    pipe = tiny_pipeline()
    return GroundedDiffusionPipeline(pipe, make_module(pipe, variant), batch_size, 3, 3.0)
