"""The optimisers of a training: AdamW, or Muon for a transformer's matrices and AdamW for the rest.

Muon (torch.optim.Muon) makes a matrix's step orthogonal; its rate is scaled so that AdamW's fits
it (arXiv 2502.16982, section 2.2). Not here: the rate over time (`schedule.py`).
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ml.foundation.schedule import Schedule


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
    muon = torch.optim.Muon(
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
