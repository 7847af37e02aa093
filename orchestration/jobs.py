"""The jobs: which assets run together. A job takes the checks of its assets along."""

import dagster as dg

from orchestration.studies import GROUP

# The console shows progress bars and warnings only; the UI and the event log have everything.
QUIET = {"loggers": {"console": {"config": {"log_level": "WARNING"}}}}

pipeline = dg.define_asset_job(
    "pipeline",
    config=QUIET,
    selection=dg.AssetSelection.all() - dg.AssetSelection.groups(GROUP),
    description="The whole graph with its checks: class names in, promoted segmenter out.",
)
data = dg.define_asset_job(
    "data",
    config=QUIET,
    selection=dg.AssetSelection.assets("prompts", "images", "masks", "triplets"),
    description="Prompts to accepted triplets.",
)
train_and_score = dg.define_asset_job(
    "train_and_score",
    config=QUIET,
    selection=dg.AssetSelection.assets(
        "benchmark",
        "grounding_model",
        "grounding_scores",
        "synthetic_dataset",
        "segmenter",
        "real_bound",
        "benchmark_scores",
    ),
    description="From triplets to both protocols' scores.",
)
promote = dg.define_asset_job(
    "promote",
    config=QUIET,
    selection=dg.AssetSelection.assets("promotion", "report"),
    description="The gate, the registry's aliases and the report.",
)
paper = dg.define_asset_job(
    "paper",
    config=QUIET,
    selection=dg.AssetSelection.groups(GROUP),
    description="The paper's questions: every study and the page, as `make paper`.",
)

JOBS = [pipeline, data, train_and_score, promote, paper]
