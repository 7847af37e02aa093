"""The optimisers of a training: AdamW, or Muon for a transformer's matrices and AdamW for the rest.

Muon (torch.optim.Muon) makes a matrix's step orthogonal; its rate is scaled so that AdamW's fits
it (arXiv 2502.16982, section 2.2). Not here: the rate over time (`schedule.py`).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ml.compute.precision import computes_bfloat16
from ml.foundation.schedule import Schedule


class Float32Muon(torch.optim.Muon):
    """Muon that orthogonalises in float32. torch's does so in bfloat16 whatever the weights have,
    which takes longer than all the rest of a step on a CPU that emulates it."""

    @torch.no_grad()
    def step(self, closure=None):
        if closure is not None:
            raise ValueError("expected no closure: this optimiser takes gradients that are there")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                kept = state["momentum_buffer"].lerp_(parameter.grad, 1 - group["momentum"])
                ahead = parameter.grad.lerp(kept, group["momentum"])  # Nesterov's
                rate = group["lr"] * 0.2 * max(parameter.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(
                    orthogonal(ahead, group["ns_coefficients"], group["ns_steps"]), alpha=-rate
                )


def orthogonal(
    matrix: torch.Tensor, coefficients: tuple[float, float, float], steps: int
) -> torch.Tensor:
    """Of a matrix (m,n) its nearest one with singular values near 1, by Newton-Schulz iterations
    in the matrix's own precision (arXiv 2502.16982, equation 2)."""
    a, b, c = coefficients
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def parameters_of(models: Mapping[str, nn.Module]) -> list[nn.Parameter]:
    """Of all models, in one order."""
    return [parameter for model in models.values() for parameter in model.parameters()]


def make_optimizers(
    models: Mapping[str, nn.Module], schedule: Schedule
) -> list[torch.optim.Optimizer]:
    """Every parameter in one of them. Muon has the matrices below a module named
    `schedule.muon`, of any model; without that name all are AdamW's."""
    named = [entry for model in models.values() for entry in model.named_parameters()]
    inner = [
        parameter
        for name, parameter in named
        if schedule.muon and parameter.ndim == 2 and schedule.muon in name.split(".")
    ]
    taken = {id(parameter) for parameter in inner}
    rest = [parameter for _, parameter in named if id(parameter) not in taken]
    adamw = torch.optim.AdamW(
        rest, lr=schedule.peak_lr, weight_decay=schedule.weight_decay, fused=schedule.fused
    )
    if not inner:
        return [adamw]
    kind = torch.optim.Muon if computes_bfloat16(inner[0].device.type) else Float32Muon
    muon = kind(
        inner,
        lr=schedule.peak_lr,
        weight_decay=schedule.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [adamw, muon]


def states_of(
    optimizers: Sequence[torch.optim.Optimizer], parameters: Sequence[nn.Parameter]
) -> dict[int, dict[str, torch.Tensor]]:
    """What they remember of each parameter, by its place among all."""
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    return {
        places[id(parameter)]: state
        for optimizer in optimizers
        for parameter, state in optimizer.state.items()
    }


def fill_states(
    optimizers: Sequence[torch.optim.Optimizer],
    parameters: Sequence[nn.Parameter],
    states: Mapping[int, dict[str, torch.Tensor]],
) -> None:
    """Gives them back what `states_of` told."""
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    for optimizer in optimizers:
        groups = optimizer.state_dict()["param_groups"]
        own = [places[id(p)] for group in optimizer.param_groups for p in group["params"]]
        found = {number: states[place] for number, place in enumerate(own) if place in states}
        optimizer.load_state_dict({"state": found, "param_groups": groups})
