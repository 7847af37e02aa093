"""The grounding checkpoint that the paper's authors released, as a module of ours.

Ours then gives, of one picture, what theirs gives of the first picture after loading. Not here:
which tensor becomes which (`ml.grounding.authors_table`), and how a file is read without running
anything in it (`ml.compute.torch_files`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from ml.compute.torch_files import damaged, read_torch_file
from ml.compute.weights import account, check_numbers, fill, shapes_of
from ml.grounding.authors_table import BLOCKS, CONFIG, ROWS
from ml.grounding.module import GroundingModule

PREFIX = "module."
"""Before every name of a checkpoint that was saved within DataParallel."""


def read_authors(file: Path) -> tuple[GroundingModule, float]:
    """The module in a checkpoint of theirs (.pth, or .safetensors), in eval mode, and how far its
    spectral norms are from settled (`authors_module`). Nothing in the file is run.

    Raises ValueError for a file that is not there or damaged, holds more than tensors, or another
    module's: every tensor is there, known, of its shape, and finite.
    """
    if not file.is_file():
        raise ValueError(
            f"no file {file}: expected the grounding checkpoint of the paper's authors"
        )
    return authors_module(_tensors(file), str(file))


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(damaged(file, str(error))) from error
    found = read_torch_file(file)
    if not isinstance(found, dict):
        raise ValueError(f"{file}: expected tensors by name, got a {type(found).__name__}")
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor) or not isinstance(name, str):
            raise ValueError(
                f"{file}: expected tensors by name, but {name!r:.80} is a {type(tensor).__name__}: "
                "give the state_dict of the grounding module alone, as it was published"
            )
    return dict(found)


def authors_module(tensors: Mapping[str, Tensor], source: str) -> tuple[GroundingModule, float]:
    """Ours with their tensors, in eval mode. source: named in errors.

    The convolutions' weights are divided by what theirs divides by at the first picture: one step
    of power iteration from the vector in the checkpoint. Theirs takes another step at each further
    picture, ours does not. Returned beside the module: by which share the largest singular value
    exceeds this one, at most; where it is next to nothing, the steps change nothing.

    Raises ValueError for tensors that are missing, unknown, of another shape, no floating-point
    numbers, or not finite.
    """
    if tensors and all(name.startswith(PREFIX) for name in tensors):
        tensors = {name.removeprefix(PREFIX): value for name, value in tensors.items()}
    module = GroundingModule(CONFIG)
    _refuse_others(tensors, module.state_dict(), source)
    made: dict[str, Tensor] = {}
    unsettled = 0.0
    for theirs, (ours, how) in ROWS.items():
        if how in ("number", "unread"):
            continue
        value = tensors[theirs].detach().float()
        if how == "same":
            made[ours] = value.contiguous().clone()
        elif how == "halves":
            made[ours] = _our_order(value, list(BLOCKS.values())[int(ours.split(".")[2])])
        elif how == "thirds":
            made |= {
                f"{ours}.{part}.weight": own
                for part, own in zip("qkv", value.chunk(3), strict=True)
            }
        else:
            matrix = tensors[theirs.replace(".u0", ".weight")].detach().float().flatten(1)
            right = F.normalize(value @ matrix, eps=1e-4)
            left = F.normalize(right @ matrix.T, eps=1e-4)
            made |= {f"{ours}.0._u": left[0], f"{ours}.0._v": right[0]}
            divided = (right @ matrix.T @ left.T).item()
            if divided <= 0:
                raise ValueError(
                    f"{source}: {theirs}: its spectral norm would divide by {divided:g}: bring the "
                    "checkpoint again, as it was published"
                )
            largest = torch.linalg.matrix_norm(matrix, 2).item()
            unsettled = max(unsettled, largest / divided - 1)
    fill(module, made, source)
    return module.eval(), unsettled


def _our_order(weight: Tensor, blocks: Sequence[int]) -> Tensor:
    """(width,2C,1,1), columns of both halves of each block, to all of one half and then all of the
    other."""
    parts = weight.split([channels for channels in blocks for _ in range(2)], dim=1)
    return torch.cat([*parts[::2], *parts[1::2]], dim=1)


def _refuse_others(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    wrong = []
    for theirs in ROWS.keys() & tensors.keys():
        if tensors[theirs].shape != (expected := _shape(theirs, own)):
            wrong.append(shapes_of(theirs, tensors[theirs].shape, expected))
    missing, unknown = ROWS.keys() - tensors.keys(), tensors.keys() - ROWS.keys()
    account(source, missing, unknown, wrong, computed=())
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or not tensor.is_floating_point():
            raise ValueError(
                f"{source}: {name}: expected floating-point numbers, got {tensor.dtype} "
                f"({tensor.layout}): bring the checkpoint again, as it was published"
            )
    check_numbers(source, tensors)


def _shape(theirs: str, own: Mapping[str, Tensor]) -> torch.Size:
    """That a tensor of theirs has, told from ours."""
    ours, how = ROWS[theirs]
    if how == "number":
        return torch.Size([1])
    if how == "norm":
        return torch.Size([1, len(own[f"{ours}.0._u"])])
    if how == "thirds":
        rows, columns = own[f"{ours}.q.weight"].shape
        return torch.Size([3 * rows, columns])
    return own[ours].shape
