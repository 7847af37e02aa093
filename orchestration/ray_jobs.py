"""Steps as jobs of a Ray cluster, by `dagster-ray`, through the job API of its dashboard.

A job gets its command and an environment, nothing else. Ray starts it in a folder of its own, with
one thread and whatever `dagster` its PATH has, so that what a step takes from its run's process is
said here. Locks are the step's own: GPU stages take turns, and a stage's folder has one writer, as
with steps in processes. Not here: how a cluster is started (docs/cluster.md).
"""

import os
import shlex
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import dagster as dg

from ml.compute.ray_start import OPEN, open_will_do, take_token, worker_environment
from orchestration.elsewhere import configured, importing

NAME = "ray"
GIVEN = ("WORDS_TO_MASKS_ROOT", "WORDS_TO_MASKS_TRACKING_URI", "WORDS_TO_MASKS_ARTIFACTS")
"""Defaults of the run config, which every step reads again; they hold no login."""
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray prefers them to any address it is given
TIMEOUT = 30.0  # seconds for an answer of the dashboard
PATIENCE = 300.0
"""Seconds without an answer of the cluster after which its steps are given up."""


def ray_jobs(init_context: dg.InitExecutorContext, config: Mapping[str, Any]) -> dg.Executor:
    """dagster-ray's executor.

    Raises as `orchestration.elsewhere`, ValueError for a cluster without a token (unless
    RAY_AUTH_MODE=disabled) or another one than the config names, ConnectionError where none is.
    """
    with importing(NAME, "dagster-ray"):
        from dagster_ray import ray_executor
    context = configured(NAME, ray_executor, init_context, config)
    address = context.executor_config["ray"].get("address")
    where = f"execution: {NAME}: {address or 'the cluster of this machine'}"
    take_token(where)
    try:
        executor = ray_executor.executor_creation_fn(context)
    except Exception as error:  # Ray has several kinds for it
        raise ConnectionError(
            f"{where}: expected a Ray cluster's dashboard there (http://127.0.0.1:8265), which "
            f"answers to this process's token (docs/cluster.md): {error}"
        ) from error
    handler = executor._step_handler
    check_cluster(where, address, handler.client.get_address())
    handler.client = Jobs(handler.client)
    return executor


def check_cluster(where: str, wanted: str | None, found: str) -> None:
    """Refuses a dashboard that is not the wanted one, or answers without a token.

    wanted: a URL, or another form of address that Ray has resolved; found: a URL.
    """
    if wanted and wanted.startswith("http") and wanted.rstrip("/") != found:
        named = " or ".join(name for name in ADDRESSES if os.environ.get(name))
        raise ValueError(f"{where}: but {named} says {found}, which Ray prefers: unset it")
    if open_will_do():
        return
    try:
        urlopen(f"{found}/api/version", timeout=TIMEOUT).close()
    except HTTPError as error:
        if error.code not in (401, 403):
            raise
    else:
        raise ValueError(f"{where} answers without a token: {OPEN}")


class Jobs:
    """What dagster-ray asks of Ray's client of jobs, with what our steps need."""

    def __init__(self, client: Any) -> None:
        import torch

        self.client = client
        self.get_job_info, self.stop_job = client.get_job_info, client.stop_job
        given = {name: os.environ.get(name, "") for name in GIVEN}
        self.environment = given | worker_environment(torch.get_num_threads())
        self.answered = time.monotonic()

    def submit_job(self, *, entrypoint: str, runtime_env: dict[str, Any], **more: Any) -> str:
        """The step in this process's folder, by its Python and with its settings: relative paths
        of a run config mean the same, and so do the last digits of a sum."""
        command = entrypoint.removeprefix("dagster ")
        python, folder = shlex.quote(sys.executable), shlex.quote(os.getcwd())
        variables = self.environment | runtime_env.get("env_vars", {})
        return self.client.submit_job(
            entrypoint=f"cd {folder} && exec {python} -m dagster {command}",
            runtime_env=runtime_env | {"env_vars": variables},
            **more,
        )

    def get_job_status(self, submission_id: str) -> Any:
        """A job that somebody stopped has failed; dagster-ray would wait for it forever, and for
        a cluster that is gone. It takes a RuntimeError for a job that is lost."""
        from ray.job_submission import JobStatus

        try:
            status = self.client.get_job_status(submission_id)
        except RuntimeError:  # the cluster's answer
            raise
        except Exception as error:  # no connection, or a cluster with another token in its place
            silent = time.monotonic() - self.answered
            if silent > PATIENCE:
                raise RuntimeError(f"the cluster is silent for {silent:.0f} s") from error
            raise
        self.answered = time.monotonic()
        return JobStatus.FAILED if status == JobStatus.STOPPED else status
