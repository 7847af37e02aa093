"""How every run begins: its profile becomes its partition, and dead runs are marked as failed.

A dead run is one whose process was killed: Dagster would show it as going on forever. All this is
done by the executor, the one place that every run passes before its first step: `dagster job
execute`, `dg launch`, `dagster asset materialize`, the UI and the daemon. `python -m
orchestration.runs` does what needs no run, so that `make ui` shows a history without dead runs.
"""

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from ml.errors import exit_path
from orchestration import pods, ray_jobs
from orchestration.resources import PARTITION, PROFILES, known_profiles, profile_name
from orchestration.turns import try_lock

ALL_ASSETS = "__ASSET_JOB"  # Dagster's own job of all assets
DEAD = (
    "The run's process ended without a word: it was killed, or the machine went down. Start "
    "the same command again; it goes on from what is finished."
)
MODULE = "orchestration.definitions"
GRACE = 60.0
"""Seconds after its start by which a run of ours has certainly left its file."""
UNBEGUN = 300.0
"""Seconds after it was recorded by which a run of ours has certainly started (the UI starts it in a
process of its own, which has to import everything). One that starts later is refused by Dagster."""
NOT_BEGUN = (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING)
PLACE = "words-to-masks/place"  # a run's tag: where its file is, since machines may share a history
ELSEWHERE = {pods.NAME: pods.pods, ray_jobs.NAME: ray_jobs.ray_jobs}  # executors of other packages
_alive = []  # this process's locked files; the kernel closes them when the process has ended


def folder_of_the_living(instance: dg.DagsterInstance) -> Path:
    return Path(instance.root_directory) / "alive"


def place(instance: dg.DagsterInstance) -> str:
    """This machine (or container) and its folder of the living."""
    return f"{socket.gethostname()}:{folder_of_the_living(instance)}"


def stay_alive(instance: dg.DagsterInstance, run_id: str) -> None:
    """Leaves a file that is locked for as long as this process lives."""
    instance.add_run_tags(run_id, {PLACE: place(instance)})
    folder = folder_of_the_living(instance)
    folder.mkdir(parents=True, exist_ok=True)
    young = folder / f".{run_id}.{os.getpid()}"
    file = young.open("w")
    try_lock(file)  # not held: no other process knows the name
    _alive.append(file)
    young.rename(folder / run_id)  # locked before others can see it under this name


def write_off_the_dead(instance: dg.DagsterInstance) -> list[str]:
    """Marks the runs whose process is gone as failed; returns their ids.

    Nothing ever waits for such a run, since its locks ended with it (`orchestration.turns`). The
    runs of another machine are left to it, and to Dagster's daemon; where no locks are known, those
    that left a file are, since nothing says who lives.
    """
    here = place(instance)
    gone = set()
    for path in folder_of_the_living(instance).glob("[!.]*"):
        try:
            with path.open("r+") as file:
                if try_lock(file):
                    path.unlink(missing_ok=True)
                    gone.add(path.name)
        except (FileNotFoundError, PermissionError):
            continue  # another run has removed it, or it is another user's
    under_way = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
    if isinstance(instance.run_launcher, dg.DefaultRunLauncher):  # a pod may wait for a GPU
        under_way += NOT_BEGUN
    dead = []
    for record in instance.get_run_records(dg.RunsFilter(statuses=under_way)):
        run = record.dagster_run
        if run.status in NOT_BEGUN:
            late = time.time() - record.create_timestamp.timestamp() > UNBEGUN
        else:
            late = time.time() - (record.start_time or time.time()) > GRACE
        late = late and run.tags.get(PLACE, here) == here
        silent = is_ours(run) and late
        silent = silent and not (folder_of_the_living(instance) / run.run_id).exists()
        if run.run_id in gone or silent:
            instance.report_run_failed(run, DEAD)
            dead.append(run.run_id)
    return dead


def is_ours(run: dg.DagsterRun) -> bool:
    """Whether a run is of this project's definitions; a history may hold other projects' too."""
    origin = run.job_code_origin
    return bool(origin) and getattr(origin.repository_origin.code_pointer, "module", "") == MODULE


def take_partition(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tags a run with its profile, so that its events and checks are that profile's.

    A run that was started on a partition (the UI, `--partition`) has the tag already.
    """
    instance.add_dynamic_partitions(PROFILES.name, known_profiles())
    if PARTITION in run.tags:
        return
    name = profile_name(run.run_config)
    instance.add_dynamic_partitions(PROFILES.name, [name])
    instance.add_run_tags(run.run_id, {PARTITION: name})
    run.tags[PARTITION] = name  # the steps of this process read the run as it was loaded


class Beginning(dg.Executor):
    """An executor that marks dead runs and takes the partition before the first step."""

    def __init__(self, inner: dg.Executor):
        self.inner = inner

    @property
    def retries(self):
        return self.inner.retries

    @property
    def step_dependency_config(self):
        return self.inner.step_dependency_config

    def execute(self, plan_context, execution_plan) -> Iterator[dg.DagsterEvent]:
        instance, run = plan_context.instance, plan_context.dagster_run
        layer = plan_context.job.get_definition().asset_layer
        if run.job_name == ALL_ASSETS and not run.asset_selection:
            raise dg.DagsterInvalidSubsetError(
                "The selection matches no asset; expected one or more of "
                f"{', '.join(sorted(k.to_user_string() for k in layer.selected_asset_keys))}. "
                "The whole graph is the job `pipeline`"
            )
        stay_alive(instance, run.run_id)
        write_off_the_dead(instance)
        if any(
            layer.get(key).partitions_def
            for key in run.asset_selection or layer.selected_asset_keys
        ):
            take_partition(instance, run)
        yield from self.inner.execute(plan_context, execution_plan)


@dg.executor(
    name="in_process_or_multiprocess",
    config_schema=dg.Field(
        dg.Selector(
            {
                "in_process": dg.in_process_executor.config_schema.as_field(),
                "multiprocess": dg.multiprocess_executor.config_schema.as_field(),
            }
            | {name: dg.Field(dg.Permissive()) for name in ELSEWHERE}
        ),
        default_value={"in_process": {}},
    ),
    requirements=lambda config: dg.multi_or_in_process_executor.get_requirements(
        {"multiprocess": {}} if ELSEWHERE.keys() & config else config
    ),
)
def in_process_or_multiprocess(init_context) -> Beginning:
    """One process by default: every further one pays 11 s of imports, more than most of the micro
    profile's stages take. `execution: {config: {multiprocess: {max_concurrent: 2}}}` in run config
    gives every step a process of its own, `{kubernetes: {}}` a pod, `{ray: {ray: {address: ...}}}`
    a job of a Ray cluster."""
    ((name, config),) = init_context.executor_config.items()
    if name in ELSEWHERE:
        return Beginning(ELSEWHERE[name](init_context, config))
    return Beginning(dg.multi_or_in_process_executor.executor_creation_fn(init_context))


def open_history() -> dg.DagsterInstance:
    """The history in $DAGSTER_HOME. Raises ValueError where that is none."""
    try:
        return dg.DagsterInstance.get()
    except dg.DagsterError as error:
        raise ValueError(
            f"DAGSTER_HOME is {os.environ.get('DAGSTER_HOME', '')!r}: expected the folder of a "
            f"Dagster history, as an absolute path ({str(error).splitlines()[0]}). `make ui` sets "
            "it; by hand: export DAGSTER_HOME=$PWD/.dagster"
        ) from error


@exit_path
def main() -> None:
    with open_history() as instance:
        write_off_the_dead(instance)
        instance.add_dynamic_partitions(PROFILES.name, known_profiles())


if __name__ == "__main__":
    sys.exit(main())
