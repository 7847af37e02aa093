"""The processes of one run: a single one, or several that `accelerate launch` or torchrun started.

A training stage runs in all of them: a step's pictures are dealt out, gradients are summed
(`ml.compute.gradients`), and the first process alone writes. This uses accelerate's PartialState
and its collectives, not its Accelerator, which keeps one mixed precision for the life of a process;
here stages of different precision follow each other in one process. Not here: processes that make
shards (`ml.store.shards`), which need not know of each other.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

if TYPE_CHECKING:  # heavy, and of use only where there are several processes
    from accelerate import PartialState
    from torch import Tensor

Value = TypeVar("Value")

WAIT = timedelta(hours=6)
"""For the other processes, while the first one evaluates and writes; torch's own is minutes."""


def count() -> int:
    """How many processes share this run. Known without importing torch."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def state() -> "PartialState":
    """accelerate's PartialState: device, process_index, is_main_process, wait_for_everyone."""
    import torch
    from accelerate import PartialState

    forced = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    return PartialState(cpu=forced or not torch.cuda.is_available(), timeout=WAIT)


def is_main() -> bool:
    """Whether this is the process that writes."""
    return count() == 1 or bool(state().is_main_process)


def from_main(value: Value) -> Value:
    """The first process's value, in all of them: they wait for it here. What the others give is
    not read."""
    if count() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    state()  # must be there before accelerate's functions, which would start it with its defaults
    shared: list[Value] = broadcast_object_list([value])
    return shared[0]


def on_main(call: Callable[[], Value]) -> Value:
    """Calls a function in the first process only; returns its result in all of them; an exception
    is raised in all of them too, so that none waits for ever."""
    if count() == 1:
        return call()
    outcome: tuple[Value | None, Exception | None] = None, None
    if is_main():
        try:
            outcome = call(), None
        except Exception as error:
            outcome = None, error
    value, failure = from_main(outcome)
    if failure is not None:
        raise failure
    return cast(Value, value)


def copy_from_main(tensor: "Tensor") -> None:
    """Overwrites a tensor with the first process's."""
    if count() > 1:
        from accelerate.utils import broadcast

        state()
        broadcast(tensor)


def summed(tensor: "Tensor") -> "Tensor":
    """The sum of a tensor over all processes, in all of them."""
    if count() == 1:
        return tensor
    from accelerate.utils import reduce

    state()
    total: Tensor = reduce(tensor, "sum")
    return total


def end() -> None:
    """Leaves the group of processes, so that torch does not complain at the exit."""
    if count() > 1:
        state().destroy_process_group()
