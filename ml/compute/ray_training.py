"""A training in several processes of Ray Train's, over machines, as `accelerate launch` on one.

Ray starts the processes and torch's process group, and tells them their ranks by the environment
that `accelerate launch` would set, so that `ml.compute.processes` sees no difference. When one is
killed, or its machine lost, all are started again and go on from the training's own checkpoint.
Ray's own tries (FailureConfig) are not used: they would repeat a wrong setting's error too. Not
here: how Ray is started (`ml.compute.ray_start`), and shards (`ml.compute.ray_pool`).
"""

import importlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from ml.compute import processes
from ml.compute.ray_pool import check_worker
from ml.compute.ray_start import (
    asks_for_token,
    connect,
    import_ray,
    open_will_do,
    start_here,
    worker_environment,
)
from ml.compute.versions import versions
from ml.errors import WorkerLost
from ml.settings.sections import ExecutorParams
from ml.store.files import say
from ml.store.places import is_remote

Result = TypeVar("Result")
LOSSES = 3
"""Times that a process of one training may be lost."""
RAY_TRAIN = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "900",
}
"""No further process for machines that announce their end, nothing for a dashboard; on a busy
machine the processes need more than Ray's 60 s to start."""


def in_processes(work: Callable[[], Result], settings: ExecutorParams, folder: Path) -> Result:
    """Calls a training in `executor.training_workers` processes of Ray's; returns the first one's
    result. For one, or in a process of `accelerate launch`, it is a plain call.

    folder: an existing one that the training writes into; every machine must see it. An exception
    of the training is raised as it is. Raises WorkerLost when processes were lost 3 times;
    ValueError for more processes than GPUs on this machine, a cluster without a token, workers with
    other versions or another `data/`; ModuleNotFoundError without Ray.
    """
    workers = settings.training_workers
    if workers == 1 or processes.count() > 1:
        return work()
    gpu = _find_ray(settings)
    ours = versions()
    unguarded = open_will_do()

    def part() -> Result:
        check_worker(versions(), asks_for_token(), unguarded, ours)
        if not (is_remote(folder) or folder.is_dir()):
            raise ValueError(
                f"a worker does not see {folder}, which was made for this training: expected the "
                "same data/ at the same path on every machine of the cluster"
            )
        return work()

    for left in reversed(range(LOSSES)):
        result, error = _fit(part, settings, gpu)
        if error is None:
            return cast(Result, result)
        if not left:
            raise WorkerLost(
                f"a training's processes were lost {LOSSES} times: out of memory, killed, or a "
                f"machine went away; fewer executor.training_workers need less memory. {error}"
            ) from error
        say("a process of the training was lost: all go on from its last checkpoint")
    raise AssertionError("not reached")


def _find_ray(settings: ExecutorParams) -> bool:
    """Starts or finds Ray; whether each process gets a GPU."""
    import torch

    workers, forced = settings.training_workers, os.environ.get("ACCELERATE_USE_CPU", "").lower()
    wanted = settings.num_gpus != 0 and forced not in ("1", "true", "yes")
    if settings.address is not None:
        connect(settings.address)
        return wanted and bool(import_ray().cluster_resources().get("GPU"))
    gpus = torch.cuda.device_count() if wanted else 0
    if gpus and workers > gpus:
        raise ValueError(
            f"executor.training_workers: expected at most {gpus}, a process for each GPU of this "
            f"machine, got {workers}; executor.num_gpus: 0 trains on the CPU"
        )
    start_here(math.ceil(workers * settings.num_cpus), gpus)
    return gpus > 0


def _fit(
    part: Callable[[], Result], settings: ExecutorParams, gpu: bool
) -> tuple[Any, Exception | None]:
    """One try: the first process's result, and what was lost."""
    import torch

    os.environ |= RAY_TRAIN
    train, ray_torch = map(importlib.import_module, ("ray.train", "ray.train.torch"))

    resources = {"CPU": settings.num_cpus} | ({"GPU": 1.0} if gpu else {})
    environment = worker_environment(torch.get_num_threads())
    if not gpu:
        environment["ACCELERATE_USE_CPU"] = "true"
    place = tempfile.mkdtemp(prefix="ray-training-")  # Ray's own, of no use to us
    try:
        trainer = ray_torch.TorchTrainer(
            part,
            torch_config=ray_torch.TorchConfig(timeout_s=int(processes.WAIT.total_seconds())),
            scaling_config=train.ScalingConfig(
                num_workers=settings.training_workers,
                use_gpu=gpu,
                resources_per_worker=resources,
                placement_strategy="SPREAD",
            ),
            run_config=train.RunConfig(
                storage_path=place, worker_runtime_env={"env_vars": environment}
            ),
        )
        return trainer.fit().return_value, None
    except train.TrainingFailedError as error:
        return None, _lost(error)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _lost(error: Any) -> Exception:
    """The error of a try in which a process was lost; raises the training's own, if it has one."""
    failures = getattr(error, "worker_failures", {})
    if failures and not any(type(each).__module__.startswith("ray.") for each in failures.values()):
        raise failures[min(failures)] from error
    lost: Exception = error
    return lost
