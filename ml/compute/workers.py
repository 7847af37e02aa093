"""The executor that a profile asks for: this process, a Ray of this machine, or a cluster."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ml.compute.ray_pool import RayPool
from ml.compute.ray_start import connect, import_ray, start_here
from ml.settings.sections import ExecutorParams
from ml.store.making import here

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workers:
    """An executor (`ml.store.making`). Ray is started, or connected to, by the first call that
    needs it: never for one worker on this machine.

    device: `diffusion.device`; workers on "cpu" take no GPU. threads: torch's, in each worker of
    Ray's; None: as many as in this process, so that the bytes are the same. A call raises
    ValueError for a cluster without a token, or GPUs that are not there; ModuleNotFoundError
    without Ray.
    """

    settings: ExecutorParams
    device: str = "auto"
    threads: int | None = None

    def __call__(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result]]:
        settings = self.settings
        if settings.address is not None and items:
            return self._cluster(settings.address)(work, items)
        if len(items) > 1 and (workers := settings.workers or self._gpus()) > 1:
            return self._machine(workers)(work, items)
        return here(work, items)

    def _cluster(self, address: str) -> RayPool:
        connect(address)
        settings, ray = self.settings, import_ray()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        any_gpu = self.device != "cpu" and any(node.get("GPU") for node in nodes)
        gpus = float(any_gpu) if settings.num_gpus is None else settings.num_gpus
        wanted = {"CPU": settings.num_cpus, "GPU": gpus}
        room = sum(
            int(min(node.get(name, 0) / n for name, n in wanted.items() if n)) for node in nodes
        )
        workers = settings.workers or max(1, room)
        return RayPool(workers, settings.num_cpus, gpus, self._threads())

    def _machine(self, workers: int) -> RayPool:
        """The GPUs are dealt out evenly, several workers to one if need be."""
        settings, gpus = self.settings, self._gpus()
        share = 1 / math.ceil(workers / gpus) if gpus else 0.0
        if settings.num_gpus is not None:
            share = settings.num_gpus
            if workers * share > gpus:
                raise ValueError(
                    f"executor.num_gpus: expected at most {gpus / workers:g} for {workers} "
                    f"workers on the {gpus} GPUs of this machine, got {share:g}"
                )
        start_here(math.ceil(workers * settings.num_cpus), gpus)
        return RayPool(workers, settings.num_cpus, share, self._threads())

    def _threads(self) -> int:
        import torch

        return torch.get_num_threads() if self.threads is None else self.threads

    def _gpus(self) -> int:
        if self.device == "cpu":
            return 0
        import torch

        return torch.cuda.device_count()
