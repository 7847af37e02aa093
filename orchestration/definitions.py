"""Everything Dagster loads: `dagster job execute -m orchestration.definitions -j pipeline`."""

import os

import dagster as dg

from orchestration.assets import ASSETS
from orchestration.checks import CHECKS
from orchestration.jobs import JOBS
from orchestration.resources import Project
from orchestration.runs import in_process_or_multiprocess
from orchestration.studies import PAPER_ASSETS, PaperRun


def given(name: str) -> str:
    """What the surroundings give a resource unless the run config says otherwise (an image, a
    chart): Dagster shows the variable's name and reads it when a run begins. "" without it."""
    return dg.EnvVar(name) if os.environ.get(name) else ""


project = Project(
    root=given("WORDS_TO_MASKS_ROOT"),
    tracking_uri=given("WORDS_TO_MASKS_TRACKING_URI"),
    artifacts=given("WORDS_TO_MASKS_ARTIFACTS"),
)
defs = dg.Definitions(
    assets=[*ASSETS, *PAPER_ASSETS],
    asset_checks=CHECKS,
    jobs=JOBS,
    resources={"project": project, "paper": PaperRun(root=project.root)},
    executor=in_process_or_multiprocess,
)
