"""One optimizer step's batch, distributed over processes and cut into parts that fit.

The gradients of a step are those of its whole batch. Processes sum them by hand after their own
backward passes instead of by DDP's hooks, so that a device that runs out of memory half-way can
throw its gradients away and start again with smaller parts while the others wait.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ml.compute import processes
from ml.compute.batching import NoRoom, attempt
from ml.errors import OutOfMemory

ADVICE = (
    "take a smaller segmenter.crop_size, width or backbone, or a smaller grounding.width; "
    "end what else holds the device's memory"
)


def own_rows(rows: int, setting: str) -> range:
    """Places of a batch of so many rows that are this process's.

    Raises ValueError, naming the setting, when a process would have none.
    """
    count = processes.count()
    if rows < count:
        raise ValueError(
            f"{setting} is {rows}: expected at least 1 for each of the {count} "
            "processes; raise it or start fewer processes"
        )
    index = processes.state().process_index if count > 1 else 0
    return range(index * rows // count, (index + 1) * rows // count)


def same_weights(module: nn.Module) -> None:
    """Gives every process the first one's weights and buffers."""
    for value in module.state_dict().values():
        processes.copy_from_main(value)


def backward_in_parts(
    module: nn.Module,
    rows: Sequence[int],
    most: int,
    loss_of: Callable[[Sequence[int]], Tensor],
    backward: Callable[[Tensor], None] = Tensor.backward,
) -> tuple[Tensor, int]:
    """Leaves the gradients of the whole batch, of all processes, in the module.

    rows: this process's. loss_of: the share of some rows in the batch's loss, so that shares add
    up to it. most: rows at once; halved as long as the device has not enough memory. Returns the
    batch's loss, on its device, for `ml.compute.losses`, and what `most` has become. Raises
    OutOfMemory when a single row does not fit.
    """
    while True:
        module.zero_grad(set_to_none=True)
        loss = attempt(partial(_backward, rows, most, loss_of, backward))
        if not isinstance(loss, NoRoom):
            break
        if min(most, len(rows)) == 1:
            raise OutOfMemory(f"out of memory with a single picture: {ADVICE} ({loss.why})")
        most = min(most, len(rows)) // 2
    if processes.count() > 1:
        loss = _sum_gradients(module, loss)
    return loss, most


def _backward(
    rows: Sequence[int],
    most: int,
    loss_of: Callable[[Sequence[int]], Tensor],
    backward: Callable[[Tensor], None],
) -> Tensor:
    losses = []
    for start in range(0, len(rows), most):
        loss = loss_of(rows[start : start + most])
        backward(loss)
        losses.append(loss.detach())
    return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def _sum_gradients(module: nn.Module, loss: Tensor) -> Tensor:
    """Sums gradients and losses over the processes, in one message; returns the loss."""
    gradients = [weight.grad for weight in module.parameters() if weight.grad is not None]
    flat = torch.cat([loss.reshape(1), *(gradient.reshape(-1) for gradient in gradients)])
    sizes = [1, *(gradient.numel() for gradient in gradients)]
    first, *parts = torch.split(processes.summed(flat), sizes)
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))
    return first[0]
