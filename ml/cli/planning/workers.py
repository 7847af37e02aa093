"""What several workers (`executor`) change: the hours of the stages whose shards they make, and the
memory of this machine. The workers are those of `ml.compute.workers`; no cluster is asked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ml.cli.planning.counts import Counts
from ml.cli.planning.need import Need
from ml.settings.params import Params
from ml.settings.sections import ExecutorParams

SHARDED = ("images", "masks", "synthetic_dataset")
RAY_BYTES = 1_000_000_000  # of Ray's own processes and the command's, assumed


@dataclass(frozen=True)
class Sharing:
    """How workers share what was measured by one process."""

    ways: int = 1  # shards made at once, each on a device like the measured one
    processes: int = 1  # that hold the models in this machine's main memory
    a_gpu: int = 1  # that hold them on one GPU
    lines: tuple[str, ...] = ()  # for the page

    def seconds(
        self, seconds: dict[str, float | None], counts: Counts, params: Params
    ) -> dict[str, float | None]:
        """The seconds by stage: those of the stages in SHARDED last as long as the worker that
        makes most shards."""
        pictures = {"synthetic_dataset": counts.synthetic}
        shared = dict(seconds)
        for name in SHARDED:
            shards = math.ceil(pictures.get(name, counts.images) / params.shards.size)
            if shards and (alone := seconds.get(name)) is not None:
                shared[name] = alone * math.ceil(shards / self.ways) / shards
        return shared

    def gpu(self, needs: Sequence[Need]) -> list[Need]:
        return [_times(need, self.a_gpu, 0) for need in needs]

    def ram(self, needs: Sequence[Need]) -> list[Need]:
        return [_times(need, self.processes, RAY_BYTES) for need in needs]


def find_sharing(executor: ExecutorParams, gpus: int) -> Sharing:
    """gpus: of this machine that the run may use; 0 where it computes on the CPU."""
    lines = []
    if executor.training_workers > 1:
        lines.append(
            f"trainings in {executor.training_workers} processes (executor.training_workers): "
            "their hours are those of one"
        )
    stages = f"{', '.join(SHARDED[:-1])} and {SHARDED[-1]}"
    if executor.address is not None:
        many = f"{executor.workers} workers" if executor.workers else "the workers"
        known = gpus > 0 and executor.workers > 0 and executor.num_gpus in (None, 1)
        what = (
            "their hours hold if each has a GPU like the one here"
            if known
            else "their hours are those of one worker like this machine, since no cluster is asked"
        )
        lines.append(f"{stages} by {many} of the cluster {executor.address}: {what}")
        return Sharing(executor.workers if known else 1, lines=tuple(lines))
    workers = executor.workers or max(1, gpus)
    if workers == 1:
        return Sharing(lines=tuple(lines))
    if gpus == 0 or executor.num_gpus == 0:
        hours = (
            "not known, since executor.num_gpus 0 keeps them from the GPU"
            if gpus
            else "those of one, which uses all cores"
        )
        lines.append(
            f"{stages} by {workers} workers on the cores of this machine: their hours are {hours}; "
            "each holds the models in main memory"
        )
        return Sharing(processes=workers, lines=tuple(lines))
    ways, a_gpu = min(workers, gpus), math.ceil(workers / gpus)
    lines.append(
        f"{stages} by {workers} workers on {gpus} GPUs of this machine: their hours are those of "
        f"{ways} at once"
    )
    return Sharing(ways, workers, a_gpu, tuple(lines))


def _times(need: Need, workers: int, more: int) -> Need:
    if workers == 1 or need.name not in SHARDED or need.bytes is None:
        return need
    return replace(
        need, bytes=workers * need.bytes + more, how=f"{need.how}; for each of {workers} workers"
    )
