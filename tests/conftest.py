"""Folders and models that tests of several rooms share.

What a fixture makes them with is imported in it: torch and diffusers take 8 s of a processor, which
a room that needs neither, and the process that deals the files out to the workers, would wait for.
"""

import gc
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.builders.small_disk import mount, umount

if TYPE_CHECKING:
    from ml import GroundedDiffusionPipeline

# The suite's inputs are the same each time; `make fuzz` looks for others, and for many.
COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("suite", derandomize=True, database=None, max_examples=40, **COMMON)
settings.register_profile("long", max_examples=2000, **COMMON)
settings.load_profile("suite")


gc.disable()  # until all tests are found: what is imported stays, and the search took 4 s of 17


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest begins first: the last to begin would leave one worker alone."""
    items.sort(key=lambda item: "test_studies_quick.py" not in item.nodeid)


@pytest.fixture(scope="session")
def door_root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("door")


@pytest.fixture(scope="session")
def grounding_folder(door_root) -> Path:
    """As the stage `grounding_model` leaves it: the micro diffusion model, an untrained module."""
    from tests.builders.doors import stage_folder

    return stage_folder(door_root)


@pytest.fixture(scope="session")
def segmenter_made(door_root) -> Path:
    from tests.builders.doors import segmenter_folder

    return segmenter_folder(door_root)


@pytest.fixture(scope="session")
def door(grounding_folder) -> "GroundedDiffusionPipeline":
    from ml import GroundedDiffusionPipeline

    return GroundedDiffusionPipeline.from_pretrained(grounding_folder)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A saved pipeline of tiny random weights. Not to be changed: see `tiny_copy`."""
    from tests.builders.tiny import save_tiny_pipeline

    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def tiny_copy(tiny_model, tmp_path) -> Path:
    """A copy of the tiny pipeline's folder, to damage."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture(scope="session")
def s3():
    """The address of an S3 server on this machine with the empty bucket `object_store.BUCKET`."""
    from tests.builders import object_store

    with object_store.server() as address:
        yield address


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Three small stages in the place of the table's: `(run, workspace, ...)` of `put_in_place`."""
    from tests.builders import small_stages

    return small_stages.put_in_place(monkeypatch, tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MB."""
    folder = tmp_path / "small"
    mount(folder)
    yield folder
    umount(folder)


@pytest.fixture
def own(tmp_path) -> Path:
    """A user's folder of labelled photographs."""
    from tests.builders import phototrees

    return phototrees.write_folder(tmp_path / "yard")


@pytest.fixture(scope="module", autouse=True)
def whole_numbers():
    """Each module begins with the processor's own numbers: a foundation's training, which tests
    call in this process, rounds the smallest ones to 0, and hypothesis refuses to work so."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
