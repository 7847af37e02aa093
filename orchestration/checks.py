"""The blocking checks: one `multi_asset_check` per stage boundary, one result per rule.

A failed one is read in the UI alone: what to do, the pictures that break it, what was observed.

Dagster blocks within one run; `orchestration.expectations.ensure_quality` does so across runs.
Rules are in `ml/quality/rules.py`, judging is in `expectations.py`.
"""

import warnings
from collections.abc import Iterator

import dagster as dg

from ml.pipeline.workspace import Workspace
from ml.quality.advice import advice
from ml.quality.rules import DOCS, RULES
from ml.quality.verdicts import Result
from orchestration.expectations import validate
from orchestration.metadata import picture, pictures
from orchestration.mlflow.model_card import cell
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
    """The stage's verdict as check results: what was observed, what was demanded, which rows break
    the rule, and where it is explained; of a failed one also what to do, and their pictures."""
    params, workspace = project.params, project.workspace
    verdict = validate(stage, params, workspace)
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
        what_to_do = "" if result.passed else f". {advice(stage, result.name, params)}"
        yield dg.AssetCheckResult(
            asset_key=stage,
            check_name=result.name,
            passed=result.passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=cell(result.says) + what_to_do,  # which the UI reads as Markdown
            metadata=metadata
            | offending_pictures(stage, result, workspace)
            # A sheet takes 130 KB of the event log: shown once a stage, and with every failure.
            | (shown if index == 0 or not result.passed else {}),
        )


def offending_pictures(
    stage: str, result: Result, workspace: Workspace
) -> dict[str, dg.MetadataValue]:
    """The pictures that break a failed check; nothing where there are none."""
    from ml.quality.offenders import offenders  # heavy, and definitions load without it

    sheet = b"" if result.passed else offenders(stage, result, workspace)
    if not sheet:
        return {}
    return {"offending_pictures": picture(sheet, "jpeg", workspace.folder(stage))}


def quality_check(stage: str) -> dg.AssetChecksDefinition:
    """The check of one stage boundary."""

    @dg.multi_asset_check(name=f"{stage}_quality", specs=specs(stage))
    def check(project: Project) -> Iterator[dg.AssetCheckResult]:
        yield from judge(project, stage)

    return check


CHECKS = [quality_check(stage) for stage in RULES]
