"""Everything a stopped training needs to continue, in one safetensors file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ml.foundation.optimizers import fill_states, parameters_of, states_of
from ml.store.files import atomic

Numbers = dict[str, float]


def save_checkpoint(
    path: Path,
    models: Mapping[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    ema: EMAModel,
    numbers: Numbers,
    settings: Mapping[str, object],
) -> None:
    """Writes models, optimisers and averaged weights, atomically. numbers: how far the run is."""
    tensors = {f"ema.{i}": p for i, p in enumerate(ema.shadow_params)}
    for name, model in models.items():
        tensors |= {f"model.{name}.{key}": t for key, t in model.state_dict().items()}
    for i, state in states_of(optimizers, parameters_of(models)).items():
        tensors |= {f"optimizer.{i}.{key}": t for key, t in state.items()}
    metadata = {"facts": json.dumps(numbers), "settings": json.dumps(settings)}
    # A copy in plain layout: safetensors writes memory as it lies, whatever the strides.
    tensors = {key: t.detach().cpu().contiguous().clone() for key, t in tensors.items()}
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata)


def load_checkpoint(
    path: Path,
    models: Mapping[str, nn.Module],
    optimizers: Sequence[torch.optim.Optimizer],
    ema: EMAModel,
    settings: Mapping[str, object],
) -> Numbers:
    """Restores what `save_checkpoint` wrote, in place, and returns its numbers.

    Raises ValueError when the checkpoint was trained with other settings.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    before = json.loads(metadata["settings"])
    if before != json.loads(json.dumps(settings)):
        raise ValueError(
            f"{path} was trained with {before}, this run has {settings}: "
            "use the same options or another --work"
        )
    for name, model in models.items():
        start = f"model.{name}."
        model.load_state_dict(
            {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
        )
    parameters = parameters_of(models)
    fill_states(optimizers, parameters, _moments(tensors, parameters))
    for i, shadow in enumerate(ema.shadow_params):
        shadow.copy_(tensors[f"ema.{i}"])
    numbers: Numbers = json.loads(metadata["facts"])
    ema.optimization_step = numbers["step"]
    return numbers


def _moments(
    tensors: Mapping[str, torch.Tensor], parameters: Sequence[nn.Parameter]
) -> dict[int, dict[str, torch.Tensor]]:
    """The optimisers' state of each parameter, by the parameter's number."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".")
            parameter = parameters[int(i)]
            if tensor.shape == parameter.shape and name != "step":
                # Fused AdamW walks raw memory: moments must lie as their weights do.
                tensor = torch.empty_like(parameter).copy_(tensor)
            state.setdefault(int(i), {})[name] = tensor
    return state
