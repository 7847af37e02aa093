"""The sound run that the checks are judged on: made once, and copied by whoever spoils it."""

import shutil

import pytest

from ml.pipeline.workspace import Workspace
from tests.builders import handmade


@pytest.fixture(scope="session")
def sound(tmp_path_factory) -> Workspace:
    return handmade.all_stages(tmp_path_factory.mktemp("sound"))


@pytest.fixture
def workspace(sound, tmp_path) -> Workspace:
    shutil.copytree(sound.root, tmp_path, dirs_exist_ok=True)
    return Workspace(tmp_path, "ci")
