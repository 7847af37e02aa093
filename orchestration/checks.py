"""The blocking checks: one `multi_asset_check` per stage boundary, one result per rule.

Dagster blocks inside one run; `orchestration.expectations.ensure_quality` does so across runs.
Rules are in `suites.py`, judging is in `quality.py`.
"""

import warnings
from collections.abc import Iterator

import dagster as dg

from ml.quality.rules import DOCS, RULES
from orchestration.expectations import validate
from orchestration.metadata import pictures
from orchestration.resources import PROFILES, Project


def specs(stage: str) -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():  # partitions of checks are a preview in this dagster
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                rule.name,
                asset=stage,
                blocking=True,
                description=rule.says,
                partitions_def=PROFILES,
            )
            for rule in RULES[stage]
        ]


def judge(project: Project, stage: str) -> Iterator[dg.AssetCheckResult]:
    """The stage's verdict as check results: what was seen, what was demanded, which rows break it,
    and where it is explained."""
    workspace = project.workspace
    verdict = validate(stage, project.params, workspace)
    shown = pictures(workspace.folder(stage))
    for index, result in enumerate(verdict.results):
        metadata = {
            "observed": str(result.observed),
            "bound": result.bound,
            "unexpected_percent": result.unexpected_percent,
            "examples": dg.MetadataValue.json(result.examples),
            "all_verdicts": dg.MetadataValue.path(str(verdict.page)),
            "explained_in": f"{DOCS}#{stage}",
        }
        yield dg.AssetCheckResult(
            asset_key=stage,
            check_name=result.name,
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=result.says,
            # 130 KB a sheet in the event log: once a stage, and wherever somebody has to look.
            metadata=metadata | (shown if index == 0 or not result.passed else {}),
        )


@dg.multi_asset_check(name="benchmark_quality", specs=specs("benchmark"))
def benchmark_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "benchmark")


@dg.multi_asset_check(name="prompts_quality", specs=specs("prompts"))
def prompts_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "prompts")


@dg.multi_asset_check(name="images_quality", specs=specs("images"))
def images_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "images")


@dg.multi_asset_check(name="masks_quality", specs=specs("masks"))
def masks_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "masks")


@dg.multi_asset_check(name="triplets_quality", specs=specs("triplets"))
def triplets_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "triplets")


@dg.multi_asset_check(name="grounding_model_quality", specs=specs("grounding_model"))
def grounding_model_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "grounding_model")


@dg.multi_asset_check(name="grounding_scores_quality", specs=specs("grounding_scores"))
def grounding_scores_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "grounding_scores")


@dg.multi_asset_check(name="synthetic_dataset_quality", specs=specs("synthetic_dataset"))
def synthetic_dataset_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "synthetic_dataset")


@dg.multi_asset_check(name="segmenter_quality", specs=specs("segmenter"))
def segmenter_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "segmenter")


@dg.multi_asset_check(name="real_bound_quality", specs=specs("real_bound"))
def real_bound_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "real_bound")


@dg.multi_asset_check(name="benchmark_scores_quality", specs=specs("benchmark_scores"))
def benchmark_scores_quality(project: Project) -> Iterator[dg.AssetCheckResult]:
    yield from judge(project, "benchmark_scores")


CHECKS = [
    benchmark_quality,
    prompts_quality,
    images_quality,
    masks_quality,
    triplets_quality,
    grounding_model_quality,
    grounding_scores_quality,
    synthetic_dataset_quality,
    segmenter_quality,
    real_bound_quality,
    benchmark_scores_quality,
]
