"""What this machine has: main memory, the profile's device, bytes in a folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ml.cli.planning.plan import Plan

if TYPE_CHECKING:
    import torch  # at run time only where it is used: it takes seconds to import

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def find_profile_device(plan: Plan) -> "torch.device | None":
    """The torch device of the profile; None, with the reason in the plan, when this machine lacks
    it."""
    from ml.compute.devices import find_device

    try:
        return find_device(plan.params.diffusion.device, "diffusion.device")
    except ValueError as error:
        plan.unusable.append(str(error))
        return None


def count_gpus(device: "torch.device | None") -> int:
    """GPUs of this machine that a run on this device may use."""
    if device is None or device.type != "cuda":
        return 0
    import torch

    return torch.cuda.device_count()


def ram_bytes() -> int:
    """Main memory of this machine, or of the container it runs in."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = CGROUP_LIMIT.read_text().strip() if CGROUP_LIMIT.is_file() else "max"
    return min(machine, int(limit)) if limit.isdigit() else machine


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder and below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
