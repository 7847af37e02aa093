"""Seconds of a call and of a training step, the device's work included."""

import time
from collections.abc import Callable

import torch

FEW, MORE = 2, 6
"""Denoising or optimizer steps of the two runs whose difference is the cost of a step."""
PATIENCE = 12.0
"""Seconds that the longer sampling may take; the batch is cut until it should."""


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call, the device's work included."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def steady(work: Callable[[], object]) -> float:
    """Seconds of a second call: the first also starts the device and chooses kernels. One that
    takes long stands for itself."""
    first = timed(work)
    return timed(work) if first < PATIENCE else first


def step_seconds(run: Callable[[int, int], object], batch: int) -> float:
    """Seconds of a training step, from a short and a longer run; what comes once cancels.

    run: trains for so many steps with batches of so many. Where whole batches would take minutes (a
    large model on a CPU, whose time is proportional to the batch), one picture stands for the
    batch. That is judged by a step's own time: what comes once (a validation, say) may take longer
    than the steps, and on a GPU a step of one picture takes half as long as one of sixteen.
    """
    one = steady(lambda: run(1, 1))
    if one > PATIENCE:
        return one * batch
    step = max(timed(lambda: run(FEW, 1)) - one, 0) / (FEW - 1)
    size = batch if one + MORE * step * batch < PATIENCE else 1
    few, more = timed(lambda: run(FEW, size)), timed(lambda: run(MORE, size))
    return max(more - few, 0) / (MORE - FEW) * batch / size


def fresh(device: torch.device) -> None:
    """Forgets the peak of the GPU's memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
