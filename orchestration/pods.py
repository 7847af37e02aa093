"""Steps in pods of their own on Kubernetes, by `dagster-k8s`."""

from collections.abc import Mapping

import dagster as dg

from orchestration.elsewhere import configured, importing

NAME = "kubernetes"
GPU_POD = {
    "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}
}
"""The tag of a step whose pod needs a GPU."""


def pods(init_context: dg.InitExecutorContext, config: Mapping[str, object]) -> dg.Executor:
    """dagster-k8s's executor of Kubernetes jobs. Raises as `orchestration.elsewhere`."""
    with importing(NAME, "dagster-k8s"):
        from dagster_k8s import k8s_job_executor
    context = configured(NAME, k8s_job_executor, init_context, config)
    return k8s_job_executor.executor_creation_fn(context)
