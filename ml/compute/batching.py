"""Batches that fit the device: out of memory, a batch is halved and the work goes on.

Here: the one loop that everything without gradients goes through on the GPU (`ml.compute.gradients`
has the one with them). Not here: what is done with a batch; it must treat each item by itself, so
that no result depends on the halving. torch is imported when something fails: the command line
knows `OutOfMemory` without it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from ml.errors import OutOfMemory

Item = TypeVar("Item")
Result = TypeVar("Result")

ADVICE = (
    "set diffusion.dtype to float16 (of a diffusion transformer bfloat16), with diffusion.variant "
    "where the model has such files, then diffusion.vae_tiling to true (of a U-Net "
    "diffusion.attention_slicing too), diffusion.quantise to int8 or diffusion.offload to model, "
    "or take a smaller diffusion.model; end what else holds the device's memory"
)


class Batches:
    """Cuts items into batches of at most `size`, a number that falls when memory runs out."""

    def __init__(self, size: int, advice: str = ADVICE) -> None:
        """advice: what to change when one item alone does not fit."""
        if size < 1:
            raise ValueError(f"expected a batch size of 1 or more, got {size}")
        self.size, self.advice = size, advice

    def run(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Yields each batch and the result of `work` on it, in order.

        A batch that runs out of memory is tried again by halves, and so are all after it, in
        later calls too. Raises OutOfMemory when one item alone does not fit.
        """
        start = 0
        while start < len(items):
            part = items[start : start + self.size]
            outcome = attempt(partial(work, part))
            if not isinstance(outcome, NoRoom):
                yield part, outcome
                start += len(part)
                continue
            if len(part) == 1:
                raise OutOfMemory(
                    f"out of memory with a single item: {self.advice} ({outcome.why})"
                )
            self.size = max(1, min(self.size, len(part) // 2))


@dataclass(frozen=True)
class NoRoom:
    """What comes of a try that ran out of memory."""

    why: str


def attempt(work: Callable[[], Result]) -> Result | NoRoom:
    """The result, or the reason why memory did not suffice; the memory of the failed try is freed.

    The error is not kept: its traceback keeps the tensors of the failed batch alive. An OutOfMemory
    raised inside is not retried; it propagates.
    """
    try:
        return work()
    except RuntimeError as error:
        if isinstance(error, OutOfMemory) or not is_out_of_memory(error):
            raise
        failure = str(error).partition("\n")[0]
    free_memory()
    return NoRoom(failure)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device (CUDA, ROCm, MPS, ...) or the CPU's allocator had not enough memory."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return isinstance(error, torch.OutOfMemoryError) or should_reduce_batch_size(error)


def free_memory() -> None:
    """Collects garbage and gives what the device's allocator keeps back to the device."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)


def free_gpu() -> None:
    """`free_memory` where this process uses a GPU: weights in a cycle of references (accelerate
    makes such of networks that wait) would lie there beside those that are loaded next. A process
    without one is spared the third of a second."""
    torch = sys.modules.get("torch")  # never imported for this: a stage of texts does without
    if torch is not None and torch.cuda.is_initialized():
        free_memory()
