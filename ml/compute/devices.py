"""The device that a setting names: found, or refused with one message, in one place; and how
tensors come to it."""

import torch

from ml.compute import processes


def find_device(name: str = "auto", setting: str = "device") -> torch.device:
    """The device of a name; `auto` is CUDA where there is one, else the CPU.

    setting: what the name stands in, for the message ("diffusion.device"). Raises ValueError for a
    name that torch does not know and for a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"{setting} {name!r} is not available here (CUDA devices: "
            f"{torch.cuda.device_count()}); set it to auto, cpu or cuda, or run where there is a "
            f"GPU with its driver: {error}"
        ) from error
    return device


def own_device() -> torch.device:
    """This process's device where several share the run (`ml.compute.processes`), else `auto`."""
    if processes.count() == 1:
        return find_device()
    device: torch.device = processes.state().device
    return device


def on_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on a device. To a GPU it goes through pinned memory, so that nothing waits for
    the copy: from pageable memory it would begin when the GPU has done all it was given."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
