"""A training in two processes of Ray Train: the losses of two processes of torchrun."""

import dataclasses
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from ml.compute import ray_start
from ml.compute.ray_training import in_processes
from ml.errors import exit_code
from ml.pipeline.runner import run_stage
from ml.pipeline.stages import segmenter
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from tests.builders import ray_parts
from tests.compute.test_processes import both  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def executor():
    """Of two training processes on a Ray of this process, which ends with the module."""
    yield dataclasses.replace(load_params().executor, training_workers=2)
    ray_start.stop_here()


@pytest.mark.slow
def test_a_training_on_ray_has_the_curve_of_torchrun_though_a_process_is_killed(
    both,  # noqa: F811
    executor,
    tmp_path,
    monkeypatch,
):
    params, one, two, _ = both
    shutil.copytree(one / "data", tmp_path / "data")
    shutil.rmtree(Workspace(tmp_path, "tiny").folder("segmenter"))
    monkeypatch.setattr(segmenter, "run", ray_parts.Mortal(tmp_path))
    on_ray = dataclasses.replace(params, executor=executor)
    report = run_stage("segmenter", on_ray, tmp_path)
    steps = (tmp_path / "steps").read_text().split()
    first, second = dict.fromkeys(steps)  # two processes, one after the other
    assert (steps.count(first), steps.count(second)) == (5, 2), "goes on after the 4th step"
    curves = [
        pd.read_csv(Workspace(root, "tiny").folder("segmenter") / "curve.csv")
        for root in (two, tmp_path)
    ]
    assert len(curves[1]) == 6
    np.testing.assert_allclose(curves[1].loss, curves[0].loss, rtol=1e-6)
    assert report.facts["pictures"] == 9
    assert run_stage("segmenter", params, tmp_path).cached, "the executor is in no recipe"


@pytest.mark.slow
def test_an_error_of_one_process_is_raised_here_at_once(executor, tmp_path):
    with pytest.raises(ValueError, match="the second process refuses") as caught:
        in_processes(ray_parts.refuses, executor, tmp_path)
    assert exit_code(caught.value) == 2


def test_one_process_is_this_one_and_needs_no_ray(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    executor = load_params().executor
    assert in_processes(lambda: 7, executor, tmp_path) == 7
    with pytest.raises(ModuleNotFoundError, match=r"pip install '.\[ray\]'"):
        in_processes(lambda: 7, dataclasses.replace(executor, training_workers=2), tmp_path)
