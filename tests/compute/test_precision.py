"""A training's precision is what the machine can compute in, and what is said of it."""

import dataclasses

import pytest
import torch

from ml.compute import precision
from ml.compute.precision import mixed_precision, usable_precision
from ml.diffusion.loading import load_pipeline
from ml.grounding.training import train
from ml.settings.profile import load_params
from tests.grounding.test_grounding_training import ENTITIES, PARAMS, Toy, make_module


@pytest.fixture
def without(monkeypatch):
    """A CPU that has AVX-512 and no instructions for bfloat16."""
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_f": True, "avx512_bf16": False}
    )
    precision._say.cache_clear()
    yield
    precision._say.cache_clear()


def test_bfloat16_falls_back_where_the_cpu_cannot_and_says_so_once(without, capsys):
    assert [usable_precision("bfloat16", "cpu") for _ in range(3)] == ["float32"] * 3
    assert capsys.readouterr().out.count("float32") == 1
    assert usable_precision("bfloat16", "cuda") == "bfloat16"
    assert usable_precision("float16", "cuda") == "float16"
    with mixed_precision("bfloat16", "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


@pytest.mark.parametrize("name", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_cpu_with_instructions_keeps_it(monkeypatch, name, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: True})
    assert usable_precision("bfloat16", "cpu") == "bfloat16"
    with mixed_precision("bfloat16", "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    assert not capsys.readouterr().out


def test_a_training_that_falls_back_is_the_one_in_float32(without, capsys):
    weights = []
    for asked in ("float32", "bfloat16"):
        module = make_module("seeded")
        params = dataclasses.replace(PARAMS, precision=asked, steps=2, evaluate_every=2)
        train(module, Toy(8, 0), Toy(4, 1), ENTITIES, params, seed=0)
        weights.append(module.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "bfloat16" in capsys.readouterr().out


def test_a_drawing_that_falls_back_is_the_one_in_float32(without, tiny_model, capsys):
    drawing = dataclasses.replace(load_params().diffusion, model=str(tiny_model), device="cpu")
    for asked in ("bfloat16", "float32"):
        pipe = load_pipeline(dataclasses.replace(drawing, dtype=asked))
        assert {weight.dtype for weight in pipe.unet.parameters()} == {torch.float32}
    assert "bfloat16" in capsys.readouterr().out
