"""Everything Dagster loads: `dagster job execute -m orchestration.definitions -j pipeline`."""

import dagster as dg

from orchestration.assets import ASSETS
from orchestration.checks import CHECKS
from orchestration.jobs import JOBS
from orchestration.paper import PAPER_ASSETS, PaperRun
from orchestration.resources import Project

# In one process by default: every further process pays 11 s of imports, more than most of the
# micro profile's stages take.
defs = dg.Definitions(
    assets=[*ASSETS, *PAPER_ASSETS],
    asset_checks=CHECKS,
    jobs=JOBS,
    resources={"project": Project(), "paper": PaperRun()},
    executor=dg.in_process_executor,
)
