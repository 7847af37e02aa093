"""Steps that another package's executor runs: the package is imported, and its part of the run
config checked, when a run asks for it, so that the definitions load without it, and sooner."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dagster as dg


@contextmanager
def importing(name: str, package: str) -> Iterator[None]:
    """Within, package is imported for `execution: name`; an extra has that name too. Raises
    ValueError where it can't be."""
    try:
        yield
    except ImportError as error:
        raise ValueError(
            f"execution: {name} needs {package}, which can't be imported ({error}): install the "
            f"extra `{name}`, or take in_process or multiprocess"
        ) from error


def configured(
    name: str,
    executor: dg.ExecutorDefinition,
    init_context: dg.InitExecutorContext,
    config: Mapping[str, object],
) -> dg.InitExecutorContext:
    """What the package's own executor is made from; config: as the package documents it.

    Raises DagsterInvalidConfigError for one that it does not take.
    """
    from dagster._config import process_config

    checked = process_config(executor.config_schema.config_type, config)
    if not checked.success:
        raise dg.DagsterInvalidConfigError(f"execution: {name}", checked.errors, config)
    return init_context._replace(executor_def=executor, executor_config=checked.value)
