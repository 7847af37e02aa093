"""Steps in pods of their own on Kubernetes, by `dagster-k8s`, which is imported when a run asks for
it: the definitions load where it is not installed, and two seconds faster where it is."""

from collections.abc import Mapping

import dagster as dg

NAME = "kubernetes"
GPU_POD = {
    "dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}
}
"""The tag of a step whose pod needs a GPU."""


def pods(init_context: dg.InitExecutorContext, config: Mapping[str, object]) -> dg.Executor:
    """dagster-k8s's executor of Kubernetes jobs; config: as it is documented there.

    Raises DagsterInvalidConfigError for a config that it does not take, ValueError where
    dagster-k8s is not installed.
    """
    from dagster._config import process_config

    try:
        from dagster_k8s import k8s_job_executor
    except ImportError as error:
        raise ValueError(
            f"execution: {NAME} needs dagster-k8s, which can't be imported ({error}): install the "
            "extra `kubernetes`, or take in_process or multiprocess"
        ) from error
    schema = k8s_job_executor.config_schema.config_type
    checked = process_config(schema, config)
    if not checked.success:
        raise dg.DagsterInvalidConfigError(f"execution: {NAME}", checked.errors, config)
    return k8s_job_executor.executor_creation_fn(
        init_context._replace(executor_def=k8s_job_executor, executor_config=checked.value)
    )
