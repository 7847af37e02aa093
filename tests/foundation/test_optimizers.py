"""The optimisers of a training: Muon in float32 beside torch's own and beside exact algebra."""

import pytest
import torch
from torch import nn

from ml.foundation import optimizers
from ml.foundation.optimizers import Float32Muon, make_optimizers, orthogonal
from ml.foundation.schedule import Schedule

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # torch's


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_orthogonal_keeps_the_directions_and_evens_the_lengths(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix, COEFFICIENTS, 5)
    lengths = left.T @ found @ right.T
    assert (lengths - torch.diag(lengths.diag())).abs().max() < 1e-3
    assert 0.6 < lengths.diag().min() and lengths.diag().max() < 1.3


def test_muon_in_float32_steps_as_torchs_does_to_bfloat16():
    torch.manual_seed(0)
    first = [torch.randn(24, 8), torch.randn(8, 24)]
    gradients = [[torch.randn_like(matrix) for matrix in first] for _ in range(5)]
    moved = []
    for kind in (torch.optim.Muon, Float32Muon):
        own = [nn.Parameter(matrix.clone()) for matrix in first]
        optimizer = kind(own, lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        for given in gradients:
            for parameter, gradient in zip(own, given, strict=True):
                parameter.grad = gradient
            optimizer.step()
        moved.append([p.detach() - matrix for p, matrix in zip(own, first, strict=True)])
        assert all(set(state) == {"momentum_buffer"} for state in optimizer.state.values())
    for theirs, ours in zip(*moved, strict=True):
        assert (ours - theirs).norm() < 0.01 * theirs.norm()


@pytest.mark.parametrize(("instructions", "kind"), [(True, torch.optim.Muon), (False, Float32Muon)])
def test_only_a_processor_without_bfloat16_takes_it(monkeypatch, instructions, kind):
    monkeypatch.setattr(optimizers, "computes_bfloat16", lambda device: instructions)
    model = nn.ModuleDict({"blocks": nn.Linear(4, 4), "head": nn.Linear(4, 4)})
    adamw, muon = make_optimizers({"model": model}, Schedule(1e-3, 1, 0.9, 0.0, muon="blocks"))
    assert type(adamw) is torch.optim.AdamW and type(muon) is kind
    assert [id(p) for g in muon.param_groups for p in g["params"]] == [id(model["blocks"].weight)]
