"""Several processes that share a training: the same losses as one gives."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file

from ml.compute import gradients, processes
from ml.errors import OutOfMemory
from ml.grounding.training import train
from ml.pipeline.runner import run_stage
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.store.manifest import read_manifest
from tests.builders.servers import free_port
from tests.grounding.test_grounding_training import ENTITIES, PARAMS, Toy, make_module


def toys() -> tuple[Toy, Toy]:
    """Training pictures with different numbers of accepted masks, and validation pictures."""
    source = Toy(20, 0)
    source.present[::3, 1] = False
    source.present[5] = False
    return source, Toy(6, 1)


# --- trainings ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same trainings in this process and in two others; folders `one` and `two`."""
    from tests.builders.tiny import tiny_backbone
    from tests.segmenters.test_segmenter import synthetic_folder

    root = tmp_path_factory.mktemp("processes")
    one, two = root / "one", root / "two"
    settings = {
        "seed": 3,
        "segmenter": {
            "backbone": str(tiny_backbone(root / "backbone")),
            "steps": 6,
            "batch_size": 5,
            "scale": 1,
            "freeze_batch_norm": True,
        },
    }
    profile = root / "tiny.yaml"
    profile.write_text(yaml.safe_dump(settings))
    params = load_params(str(profile))
    synthetic_folder(Workspace(one, "tiny"), [True] * 9)
    shutil.copytree(one, two)
    curves = {}
    with pytest.MonkeyPatch.context() as patch:  # the two run on the CPU; so must this one
        patch.setattr(torch.cuda, "is_available", lambda: False)
        run_stage("segmenter", params, one)
        for variant in ("seeded", "paper"):
            curves[variant] = train(make_module(variant), *toys(), ENTITIES, PARAMS, 0).curve
        train(make_module("paper"), *toys(), ENTITIES, PARAMS, 0, two / "paper.pt", stop_after=4)
    launch(2, "-m", "tests.builders.two_processes", str(two), str(profile))
    return params, one, two, curves


def launch(count: int, *command: str) -> None:
    """What torchrun does, without a third process that imports torch."""
    common = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": "true",
    }
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, "\n".join(said)[-6000:]
    assert "segmenter: done in" in said[0] and "segmenter: done in" not in said[1]
    assert all("runs in one process, not in 2" in text for text in said)
    assert all("told by the first, seen by 0" in text for text in said), "none waits for ever"


def test_two_processes_give_the_segmenter_the_curve_of_one(both):
    """5 pictures a step dealt out as 2 and 3, with different numbers of masks and of pixels."""
    params, one, two, _ = both
    curves = [
        pd.read_csv(Workspace(root, "tiny").folder("segmenter") / "curve.csv")
        for root in (one, two)
    ]
    np.testing.assert_allclose(curves[1].loss, curves[0].loss, rtol=5e-4)  # 2e-7 here
    assert len(curves[0]) == 6 and curves[0].loss[5] < curves[0].loss[0]
    weights = [
        load_file(Workspace(root, "tiny").folder("segmenter") / "model/model.safetensors")
        for root in (one, two)
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0, atol=3e-3)


def test_the_first_of_two_processes_leaves_a_finished_stage(both):
    params, one, two, _ = both
    facts = [
        read_manifest(Workspace(root, "tiny").folder("segmenter")).facts for root in (one, two)
    ]
    assert facts[0].keys() == facts[1].keys() and facts[1]["pictures"] == 9
    assert facts[1]["pictures_by_class"] == facts[0]["pictures_by_class"]
    assert not (Workspace(two, "tiny").folder("segmenter") / ".progress").exists()
    assert run_stage("segmenter", params, two).cached


def test_two_processes_give_the_grounding_module_the_curve_of_one(both):
    """`seeded` from the start, `paper` going on at step 4 from one process's checkpoint."""
    *_, two, curves = both
    found = json.loads((two / "grounding.json").read_text())
    for variant in ("seeded", "paper"):
        assert [row["step"] for row in found[variant]] == [4, 8, 12]
        for column in ("loss", "val_miou"):
            pairs = [[row[column] for row in curve] for curve in (found[variant], curves[variant])]
            np.testing.assert_allclose(*pairs, rtol=5e-4)  # 1e-7 here


def test_more_processes_than_pictures_in_a_batch_is_an_error(monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 4)
    with pytest.raises(
        ValueError,
        match="segmenter.batch_size is 3: expected at least 1 for each of the 4 processes",
    ):
        gradients.own_rows(3, "segmenter.batch_size")


# --- parts of a batch ---------------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_halved_and_gives_the_same_gradients():
    torch.manual_seed(0)
    module, data = torch.nn.Linear(4, 1), torch.randn(7, 4)
    tried = []

    def loss_of(rows):
        tried.append(len(rows))
        if len(rows) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return module(data[list(rows)]).pow(2).sum() / len(data)

    loss, most = gradients.backward_in_parts(module, range(7), 16, loss_of)
    assert (tried, most) == ([7, 3, 1, 1, 1, 1, 1, 1, 1], 1)
    expected = module(data).pow(2).mean()
    (gradient,) = torch.autograd.grad(expected, [module.weight])
    assert loss.item() == pytest.approx(expected.item())
    torch.testing.assert_close(module.weight.grad, gradient)


def test_memory_that_ends_within_a_batch_leaves_nothing_behind():
    """The second part fails after the first has left gradients: they must not count twice."""
    module, tried = torch.nn.Linear(1, 1, bias=False), []

    def loss_of(rows):
        tried.append(list(rows))
        if list(rows) == [2, 3]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return module.weight.sum() * len(rows)

    _, most = gradients.backward_in_parts(module, range(4), 2, loss_of)
    assert most == 1 and tried[:2] == [[0, 1], [2, 3]] and len(tried) == 6
    assert module.weight.grad.item() == 4


@pytest.mark.parametrize("variant", ["seeded", "paper"])
def test_grounding_that_does_not_fit_trains_on_in_parts(variant, monkeypatch):
    """Words without a mask are spread unevenly, so the parts' losses must be weighted.

    Spectral norm takes a step at every forward pass, so the weights are not quite the same.
    """
    expected = train(make_module(variant), *toys(), ENTITIES, PARAMS, 0).curve
    original, tried = Toy.batch, []

    def greedy(self, indices):
        tried.append(len(indices))
        if len(indices) > 3 and len(indices) != 20:  # the features' scales take all at once
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(self, indices)

    monkeypatch.setattr(Toy, "batch", greedy)
    found = train(make_module(variant), *toys(), ENTITIES, PARAMS, 0).curve
    assert 8 in tried and max(tried[tried.index(8) + 2 :]) <= 3
    for column, tolerance in (("loss", 1e-3), ("val_miou", 2e-2)):
        pairs = [[row[column] for row in curve] for curve in (found, expected)]
        np.testing.assert_allclose(*pairs, rtol=tolerance)


def test_one_picture_that_does_not_fit_is_an_error():
    def loss_of(rows):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory, match="single picture.*crop_size.*CUDA out of memory"):
        gradients.backward_in_parts(torch.nn.Linear(1, 1), range(4), 4, loss_of)


# --- the launcher -------------------------------------------------------------------------------


@pytest.mark.slow
def test_torchrun_trains_the_module_of_the_command_line(both, tmp_path):
    """The command of the docs, with its launcher; `accelerate launch` is the same on GPUs."""
    params, one, _, _ = both
    shutil.copytree(one / "data", tmp_path / "data")
    shutil.rmtree(Workspace(tmp_path, "tiny").folder("segmenter"))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc_per_node",
            "2",
            "-m",
            "ml",
            "segmenter",
            "--profile",
            str(one.parent / "tiny.yaml"),
            "--root",
            str(tmp_path),
        ],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert run_stage("segmenter", params, tmp_path).cached
