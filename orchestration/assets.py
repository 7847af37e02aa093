"""The assets: one plain function per stage of `ml.pipeline.table.STAGES`, and the seal after the
checks.

Only names, labels and dependencies belong here. What a stage does is in `ml/pipeline/stages/`, what
its output must look like in `suites.py`, what the UI shows of it in `metadata.py`. Groups follow
the graph: data, grounding, segmentation, evaluation, release.
"""

from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext

import dagster as dg

from ml.pipeline.runner import StageReport, run_stage
from ml.pipeline.table import STAGE, STAGES
from orchestration.expectations import ensure_quality
from orchestration.metadata import describe
from orchestration.resources import PROFILES, Project
from orchestration.turns import gpu_turn, when_free

COMMON = {"owners": ["team:grounding"], "partitions_def": PROFILES}
# `tags` are seen in the catalogue, `op_tags` reach the step: an executor's limits, a launcher.
CPU = COMMON | {"tags": {"compute": "cpu"}, "op_tags": {"compute": "cpu"}}
# A step or a worker that was killed finds its finished shards and checkpoints when tried again.
GPU = COMMON | {
    "tags": {"compute": "gpu"},
    "op_tags": {"compute": "gpu"},
    "retry_policy": dg.RetryPolicy(max_retries=1),
}


def version(stage: str) -> str:
    return str(STAGE[stage].version)


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

    Raises Dagster's Failure, which is tried again only where a process was killed: the same data
    and settings fail the same way.
    """
    try:
        report = make(project, stage, force)
    except Exception as error:
        killed = isinstance(error.__cause__, BrokenProcessPool)
        raise dg.Failure(f"{type(error).__name__}: {error}", allow_retries=killed) from error
    return dg.MaterializeResult(
        metadata=describe(report, project.workspace.folder(stage)),
        data_version=dg.DataVersion(report.digest),
    )


@dg.asset(group_name="data", kinds={"python", "parquet"}, code_version=version("benchmark"), **CPU)
def benchmark(project: Project) -> dg.MaterializeResult:
    """The frozen test pictures with exact label maps: drawn from seeds of their own, or real."""
    return materialize(project, "benchmark")


@dg.asset(group_name="data", kinds={"python", "parquet"}, code_version=version("prompts"), **CPU)
def prompts(project: Project) -> dg.MaterializeResult:
    """What to draw: one- and two-object prompts, balanced over classes, each with its own seed."""
    return materialize(project, "prompts")


@dg.asset(
    deps=["prompts"],
    group_name="data",
    kinds={"pytorch", "parquet"},
    code_version=version("images"),
    **GPU,
)
def images(project: Project) -> dg.MaterializeResult:
    """Pictures of the training and sim prompts, with the latent before the last step and DAAM."""
    return materialize(project, "images")


@dg.asset(
    deps=["images"],
    group_name="data",
    kinds={"pytorch", "parquet"},
    code_version=version("masks"),
    **GPU,
)
def masks(project: Project) -> dg.MaterializeResult:
    """What the detector found of each entity: labels of seen classes, an oracle on the sim set."""
    return materialize(project, "masks")


@dg.asset(
    deps=["images", "masks"],
    group_name="data",
    kinds={"python", "parquet"},
    code_version=version("triplets"),
    **CPU,
)
def triplets(project: Project) -> dg.MaterializeResult:
    """Accepted {picture, mask, word}, and the rejected ones with the reason."""
    return materialize(project, "triplets")


@dg.asset(
    deps=["images", "triplets"],
    group_name="grounding",
    kinds={"pytorch"},
    code_version=version("grounding_model"),
    **GPU,
)
def grounding_model(project: Project) -> dg.MaterializeResult:
    """The module that turns diffusion features and a word into a mask, trained on seen classes."""
    return materialize(project, "grounding_model")


@dg.asset(
    deps=["images", "triplets", "grounding_model"],
    group_name="evaluation",
    kinds={"pytorch"},
    code_version=version("grounding_scores"),
    **GPU,
)
def grounding_scores(project: Project) -> dg.MaterializeResult:
    """Protocol I: mIoU on pictures never trained on, seen and unseen words, beside DAAM."""
    return materialize(project, "grounding_scores")


@dg.asset(
    deps=["prompts", "grounding_model", "benchmark"],
    group_name="segmentation",
    kinds={"pytorch", "parquet"},
    code_version=version("synthetic_dataset"),
    **GPU,
)
def synthetic_dataset(project: Project) -> dg.MaterializeResult:
    """New pictures over all classes that the diffusion model and the module labelled themselves."""
    return materialize(project, "synthetic_dataset")


@dg.asset(
    deps=["synthetic_dataset"],
    group_name="segmentation",
    kinds={"pytorch"},
    code_version=version("segmenter"),
    **GPU,
)
def segmenter(project: Project) -> dg.MaterializeResult:
    """The segmenter, trained on the synthetic set alone."""
    return materialize(project, "segmenter")


@dg.asset(
    deps=["synthetic_dataset", "benchmark"],
    group_name="segmentation",
    kinds={"pytorch"},
    code_version=version("real_bound"),
    **GPU,
)
def real_bound(project: Project) -> dg.MaterializeResult:
    """The same segmenter trained on as many real pictures with true labels: the upper bound."""
    return materialize(project, "real_bound")


@dg.asset(
    deps=["benchmark", "synthetic_dataset", "segmenter", "real_bound"],
    group_name="evaluation",
    kinds={"pytorch"},
    code_version=version("benchmark_scores"),
    **GPU,
)
def benchmark_scores(project: Project) -> dg.MaterializeResult:
    """Protocol II: mIoU over seen, unseen, harmonic, with intervals, on the frozen benchmark."""
    return materialize(project, "benchmark_scores")


@dg.asset(
    deps=["grounding_scores", "benchmark_scores"],
    group_name="release",
    kinds={"mlflow"},
    code_version=version("promotion"),
    **CPU,
)
def promotion(project: Project) -> dg.MaterializeResult:
    """Registers both models as challengers; the gate's verdict moves the champion alias."""
    from orchestration.mlflow.registry import Registry

    registry = Registry(*project.registry, project.params, project.workspace)
    registry.log_challengers()
    result = materialize(project, "promotion", force=registry.sync_champions())
    return result._replace(metadata=result.metadata | registry.apply_verdict())


@dg.asset(
    deps=[
        "prompts",
        "images",
        "masks",
        "triplets",
        "grounding_model",
        "grounding_scores",
        "synthetic_dataset",
        "segmenter",
        "real_bound",
        "benchmark",
        "benchmark_scores",
        "promotion",
    ],
    group_name="release",
    kinds={"python", "html"},
    code_version=version("report"),
    **CPU,
)
def report(project: Project) -> dg.MaterializeResult:
    """One self-contained HTML page: pictures, masks, curves and tables of the whole run."""
    return materialize(project, "report")


@dg.asset(deps=[stage.name for stage in STAGES], group_name="release", kinds={"dvc"}, **CPU)
def sealed_data(project: Project) -> dg.MaterializeResult:
    """Everything that was made and passed its checks, committed to DVC (the default profile)."""
    from orchestration.versioning import seal

    return dg.MaterializeResult(metadata=seal(project.workspace))


ASSETS = [
    benchmark,
    prompts,
    images,
    masks,
    triplets,
    grounding_model,
    grounding_scores,
    synthetic_dataset,
    segmenter,
    real_bound,
    benchmark_scores,
    promotion,
    report,
    sealed_data,
]
