"""One set of folders for all tests of the door."""

from pathlib import Path

import pytest

from ml import GroundedDiffusionPipeline
from tests.builders.doors import segmenter_folder, stage_folder


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("door")


@pytest.fixture(scope="session")
def folder(root) -> Path:
    """As the stage `grounding_model` leaves it: the micro diffusion model, an untrained module."""
    return stage_folder(root)


@pytest.fixture(scope="session")
def segmenter(root) -> Path:
    return segmenter_folder(root)


@pytest.fixture(scope="session")
def pipe(folder) -> GroundedDiffusionPipeline:
    return GroundedDiffusionPipeline.from_pretrained(folder)
