"""The assets: one plain function per stage of `ml.stages.STAGES`, and the seal after the checks.

Only names, labels and dependencies belong here. What a stage does is in `ml/stages/`, what its
output must look like in `suites.py`, what the UI shows of it in `metadata.py`.
"""

import dagster as dg

from ml.stages import STAGE, run_stage
from orchestration.metadata import describe
from orchestration.quality import ensure_quality
from orchestration.resources import Project

OWNERS = ["team:grounding"]
CPU, GPU = {"compute": "cpu"}, {"compute": "gpu"}


def version(stage: str) -> str:
    return str(STAGE[stage].version)


def materialize(project: Project, stage: str, *, force: bool = False) -> dg.MaterializeResult:
    """Judges the inputs that have no verdict yet, runs the stage (or finds it done), describes it.

    Raises QualityError when the checks of an input, as it is now, failed, in whatever run.
    """
    params, workspace = project.params, project.workspace
    ensure_quality(stage, params, workspace)
    report = run_stage(stage, params, project.home, force=force)
    return dg.MaterializeResult(metadata=describe(report, workspace.folder(stage)),
                                data_version=dg.DataVersion(report.digest))


@dg.asset(group_name="evaluation", kinds={"python", "parquet"}, owners=OWNERS, tags=CPU,
          code_version=version("benchmark"))
def benchmark(project: Project) -> dg.MaterializeResult:
    """The frozen test pictures with exact label maps: drawn from seeds of their own, or real."""
    return materialize(project, "benchmark")


@dg.asset(group_name="data", kinds={"python", "parquet"}, owners=OWNERS, tags=CPU,
          code_version=version("prompts"))
def prompts(project: Project) -> dg.MaterializeResult:
    """What to draw: one- and two-object prompts, balanced over classes, each with its own seed."""
    return materialize(project, "prompts")


@dg.asset(deps=["prompts"], group_name="data", kinds={"pytorch", "parquet"}, owners=OWNERS,
          tags=GPU, code_version=version("images"), pool="gpu")
def images(project: Project) -> dg.MaterializeResult:
    """Pictures of the training and sim prompts, with the latent before the last step and DAAM."""
    return materialize(project, "images")


@dg.asset(deps=["images"], group_name="data", kinds={"pytorch", "parquet"}, owners=OWNERS,
          tags=GPU, code_version=version("masks"), pool="gpu")
def masks(project: Project) -> dg.MaterializeResult:
    """What the detector found of each entity: labels of seen classes, an oracle on the sim set."""
    return materialize(project, "masks")


@dg.asset(deps=["images", "masks"], group_name="data", kinds={"python", "parquet"}, owners=OWNERS,
          tags=CPU, code_version=version("triplets"))
def triplets(project: Project) -> dg.MaterializeResult:
    """Accepted {picture, mask, word}, and the rejected ones with the reason."""
    return materialize(project, "triplets")


@dg.asset(deps=["images", "triplets"], group_name="grounding", kinds={"pytorch"}, owners=OWNERS,
          tags=GPU, code_version=version("grounding_model"), pool="gpu")
def grounding_model(project: Project) -> dg.MaterializeResult:
    """The module that turns diffusion features and a word into a mask, trained on seen classes."""
    return materialize(project, "grounding_model")


@dg.asset(deps=["images", "triplets", "grounding_model"], group_name="evaluation",
          kinds={"pytorch"}, owners=OWNERS, tags=GPU, code_version=version("grounding_scores"),
          pool="gpu")
def grounding_scores(project: Project) -> dg.MaterializeResult:
    """Protocol I: mIoU on pictures never trained on, seen and unseen words, beside DAAM."""
    return materialize(project, "grounding_scores")


@dg.asset(deps=["prompts", "grounding_model", "benchmark"], group_name="segmentation",
          kinds={"pytorch", "parquet"}, owners=OWNERS, tags=GPU,
          code_version=version("synthetic_dataset"), pool="gpu")
def synthetic_dataset(project: Project) -> dg.MaterializeResult:
    """New pictures over all classes that the diffusion model and the module labelled themselves."""
    return materialize(project, "synthetic_dataset")


@dg.asset(deps=["synthetic_dataset"], group_name="segmentation", kinds={"pytorch"}, owners=OWNERS,
          tags=GPU, code_version=version("segmenter"), pool="gpu")
def segmenter(project: Project) -> dg.MaterializeResult:
    """The segmenter, trained on the synthetic set alone."""
    return materialize(project, "segmenter")


@dg.asset(deps=["synthetic_dataset", "benchmark"], group_name="segmentation", kinds={"pytorch"},
          owners=OWNERS, tags=GPU, code_version=version("real_bound"), pool="gpu")
def real_bound(project: Project) -> dg.MaterializeResult:
    """The same segmenter trained on as many real pictures with true labels: the upper bound."""
    return materialize(project, "real_bound")


@dg.asset(deps=["benchmark", "synthetic_dataset", "segmenter", "real_bound"],
          group_name="evaluation", kinds={"pytorch"}, owners=OWNERS, tags=GPU,
          code_version=version("benchmark_scores"), pool="gpu")
def benchmark_scores(project: Project) -> dg.MaterializeResult:
    """Protocol II: mIoU over seen, unseen, harmonic, with intervals, on the frozen benchmark."""
    return materialize(project, "benchmark_scores")


@dg.asset(deps=["grounding_scores", "benchmark_scores"], group_name="evaluation",
          kinds={"mlflow"}, owners=OWNERS, tags=CPU, code_version=version("promotion"))
def promotion(project: Project) -> dg.MaterializeResult:
    """Registers both models as challengers; the gate's verdict moves the champion alias."""
    from orchestration.registry import Registry

    registry = Registry(*project.registry, project.params, project.workspace)
    registry.log_challengers()
    result = materialize(project, "promotion", force=registry.sync_champions())
    return result._replace(metadata=result.metadata | registry.apply_verdict())


@dg.asset(deps=["prompts", "images", "masks", "triplets", "grounding_model", "grounding_scores",
                "synthetic_dataset", "segmenter", "real_bound", "benchmark", "benchmark_scores",
                "promotion"],
          group_name="evaluation", kinds={"python", "html"}, owners=OWNERS, tags=CPU,
          code_version=version("report"))
def report(project: Project) -> dg.MaterializeResult:
    """One self-contained HTML page: pictures, masks, curves and tables of the whole run."""
    return materialize(project, "report")


@dg.asset(deps=["triplets", "grounding_model", "synthetic_dataset", "segmenter", "real_bound"],
          group_name="data", kinds={"dvc"}, owners=OWNERS, tags=CPU, pool="dvc")
def sealed_data(project: Project) -> dg.MaterializeResult:
    """Data and models whose checks passed, committed to DVC (the default profile only)."""
    from orchestration.versioning import seal

    return dg.MaterializeResult(metadata=seal(project.workspace))


ASSETS = [benchmark, prompts, images, masks, triplets, grounding_model, grounding_scores,
          synthetic_dataset, segmenter, real_bound, benchmark_scores, promotion, report,
          sealed_data]
