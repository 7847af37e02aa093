"""The precision that a computation really has: the one asked for, where the machine has it.

A CPU without instructions for bfloat16 emulates it, 17 times slower than float32.
"""

import functools

import torch

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16")
"""Names in `torch.cpu.get_capabilities`, of x86 and of ARM."""


def usable_precision(asked: str, device: str) -> str:
    """The precision asked for, or float32, with a line on stdout, on a CPU that emulates bfloat16.

    asked: float32, float16 or bfloat16; device: its type, "cpu" or "cuda".
    """
    if asked == "bfloat16" and not computes_bfloat16(device):
        _say()
        return "float32"
    return asked


def mixed_precision(asked: str, device: str) -> torch.autocast:
    """The context of a forward pass in `usable_precision`."""
    precision = usable_precision(asked, device)
    return torch.autocast(device, getattr(torch, precision), enabled=precision != "float32")


def computes_bfloat16(device: str) -> bool:
    """Whether a type of device has instructions for it: all but older CPUs do."""
    if device != "cpu":
        return True
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in INSTRUCTIONS)


@functools.cache
def _say() -> None:
    """Once a process: a training asks at every step."""
    print("This CPU has no instructions for bfloat16: computed in float32 instead", flush=True)
