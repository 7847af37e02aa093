"""The assets: one for every row of `ml.pipeline.table.STAGES`, and the seal after the checks.

Names, labels and dependencies are the table's. What a stage does is in `ml/pipeline/stages/`, what
its output must look like in `ml/quality/rules.py`, what the UI shows of it in `metadata.py`.
"""

from contextlib import nullcontext
from functools import partial

import dagster as dg

from ml.errors import WorkerLost, shown
from ml.pipeline.runner import StageReport, run_stage
from ml.pipeline.table import STAGE, STAGES, Stage
from orchestration.expectations import ensure_quality, judge_all
from orchestration.metadata import describe
from orchestration.pods import GPU_POD
from orchestration.resources import PROFILES, Project
from orchestration.turns import checkout_turn, gpu_turn, when_free

COMMON = {"owners": ["team:grounding"], "partitions_def": PROFILES}
# The catalogue shows `tags`; executors' limits and launchers read `op_tags`.
CPU = COMMON | {"tags": {"compute": "cpu"}, "op_tags": {"compute": "cpu"}}
# Tried again, a step whose process was killed continues from its finished shards and checkpoints.
GPU = COMMON | {
    "tags": {"compute": "gpu"},
    "op_tags": {"compute": "gpu"} | GPU_POD,
    "retry_policy": dg.RetryPolicy(max_retries=1),
}


def make(project: Project, stage: str, force: bool) -> StageReport:
    """Judges the inputs that have no verdict yet, then runs the stage or finds it done.

    GPU stages take turns, and a busy workspace is waited for.
    """
    params, workspace = project.params, project.workspace
    ensure_quality(stage, params, workspace)
    who = f"{stage} of {workspace.data}"
    with gpu_turn(project.home, who) if STAGE[stage].heavy else nullcontext():
        return when_free(lambda: run_stage(stage, params, project.home, force=force))


def materialize(project: Project, stage: str, *, force: bool = False) -> dg.MaterializeResult:
    """Makes the stage and describes it for the UI.

    Raises Dagster's Failure, which is tried again only when workers were lost: otherwise the
    same data and settings would fail again.
    """
    try:
        report = make(project, stage, force)
    except Exception as error:
        lost = isinstance(error, WorkerLost)
        raise dg.Failure(shown(f"{type(error).__name__}: {error}"), allow_retries=lost) from error
    return dg.MaterializeResult(
        metadata=describe(report, project.workspace.folder(stage)),
        data_version=dg.DataVersion(report.digest),
    )


def promote(project: Project, stage: str) -> dg.MaterializeResult:
    """Makes the stage `promotion` between two uses of the model registry: both models become
    challengers before it, and its verdict moves the champion alias after it. A registry that is
    locked or gone for a while is waited for, and so is another run that promotes: both would log
    the same model."""
    from orchestration.mlflow.absence import when_there
    from orchestration.mlflow.record import outdated
    from orchestration.mlflow.registry import Registry

    there = partial(when_there, project.registry[0])
    with checkout_turn(project.home, "promotion", f"{stage} of {project.workspace.data}"):
        registry = there(lambda: Registry(*project.registry, project.params, project.workspace))
        there(registry.log_challengers)
        there(registry.sync_champions)
        result = materialize(project, stage, force=outdated(project.workspace))
        return result._replace(metadata=result.metadata | there(registry.apply_verdict))


MAKERS = {"promotion": promote}  # of the stages that do more than `materialize`


def labels(stage: Stage) -> dict[str, object]:
    """What the catalogue and the graph view show of a stage."""
    return {
        "description": stage.description,
        "group_name": stage.group,
        "kinds": set(stage.kinds),
        "code_version": str(stage.version),
    }


def stage_asset(stage: Stage) -> dg.AssetsDefinition:
    """The asset of one row of the table."""
    maker = MAKERS.get(stage.name, materialize)
    compute = GPU if stage.heavy else CPU

    @dg.asset(name=stage.name, deps=stage.inputs, **labels(stage), **compute)
    def asset(project: Project) -> dg.MaterializeResult:
        return maker(project, stage.name)

    return asset


@dg.asset(deps=list(STAGE), group_name="release", kinds={"dvc"}, **CPU)
def sealed_data(project: Project) -> dg.MaterializeResult:
    """Everything that was made and passed its checks, committed to DVC (the default profile)."""
    from orchestration.versioning import seal

    judge = partial(judge_all, project.params, project.workspace)
    return dg.MaterializeResult(metadata=seal(project.workspace, judge))


ASSETS = [*map(stage_asset, STAGES), sealed_data]
