"""Everything Dagster loads: `dagster job execute -m orchestration.definitions -j pipeline`."""

import dagster as dg

from orchestration.assets import ASSETS
from orchestration.checks import CHECKS
from orchestration.jobs import JOBS
from orchestration.resources import Project
from orchestration.runs import in_process_or_multiprocess
from orchestration.sensors import SENSORS
from orchestration.studies import PAPER_ASSETS, PaperRun

defs = dg.Definitions(
    assets=[*ASSETS, *PAPER_ASSETS],
    asset_checks=CHECKS,
    jobs=JOBS,
    sensors=SENSORS,
    resources={"project": Project(), "paper": PaperRun()},
    executor=in_process_or_multiprocess,
)
