"""The paper's studies as assets of the group "paper", and their page: the job `paper`.

Apart from the pipeline: they read foundation models alone and write `data/paper[-quick]/`. What a
study does is in `ml/studies/`; here are only names, labels and what the UI shows.
"""

from typing import Literal

import dagster as dg
from pydantic import Field

from ml.studies.catalogue import ABOUT, STUDIES
from orchestration.pods import GPU_POD
from orchestration.resources import home_of
from orchestration.turns import gpu_turn

GROUP = "paper"
LABELS = {"group_name": GROUP, "owners": ["team:grounding"]}
GPU = {"tags": {"compute": "gpu"}, "op_tags": {"compute": "gpu"} | GPU_POD}


class PaperRun(dg.ConfigurableResource):
    """A run of the studies: full or quick, and where."""

    size: Literal["full", "quick"] = Field(
        "full",
        description="full takes hours on two cores; quick is cut down to minutes and shows that "
        "it works.",
    )
    root: str = Field(
        "",
        description="Folder that holds data/ and docs/. Empty: $WORDS_TO_MASKS_ROOT, and without "
        "it this checkout.",
    )
    workers: int = Field(0, description="Processes that work at once. 0: one a core.")

    @property
    def run(self):
        """The folders and settings of the studies' run."""
        from ml.studies.study_run import open_run

        return open_run(self.size, home_of(self.root), self.workers or None)


def asset_name(study: str) -> str:
    return f"paper_{study}"


def study_asset(name: str) -> dg.AssetsDefinition:
    """The asset of one study: made or found, its blocks saved for the page."""

    @dg.asset(
        name=asset_name(name),
        description=ABOUT[name],
        kinds={"pytorch", "parquet"},
        **LABELS,
        **GPU,
    )
    def asset(paper: PaperRun) -> dg.MaterializeResult:
        from ml.studies.catalogue import make_study

        run = paper.run
        # They share pictures and trainings, and the first to need one makes it.
        with gpu_turn(run.root, f"the study {name}"):
            saved, minutes = make_study(run, name)
        return dg.MaterializeResult(metadata=shown(saved) | {"minutes": minutes})

    return asset


def shown(saved) -> dict[str, dg.MetadataValue]:
    """The study's title and its first table, for the UI."""
    from ml.studies.blocks import Table
    from ml.studies.markdown import table

    first = next((block for block in saved.blocks if isinstance(block, Table)), None)
    values = {"title": dg.MetadataValue.text(saved.title)}
    return values | ({"table": dg.MetadataValue.md(table(first))} if first else {})


@dg.asset(
    deps=[asset_name(name) for name in STUDIES],
    kinds={"python", "html"},
    tags={"compute": "cpu"},
    **LABELS,
)
def paper_page(paper: PaperRun) -> dg.MaterializeResult:
    """results.md and results.html: our figures beside the paper's, with the command of each row."""
    from ml.studies.page import publish

    pages = publish(paper.run)
    return dg.MaterializeResult(
        metadata={
            "markdown": dg.MetadataValue.path(str(pages.markdown)),
            "html": dg.MetadataValue.path(str(pages.html)),
            "bytes": pages.html.stat().st_size,
        }
    )


PAPER_ASSETS = [*map(study_asset, STUDIES), paper_page]
