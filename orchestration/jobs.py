"""The jobs: which assets run together, and what a launch on a profile's partition is given.

A job takes the checks of its assets along. How much the console shows stands in
`.dagster/dagster.yaml`, so that the launchpad's editor begins with what matters.
"""

import dagster as dg

from ml.settings.profile import ROOT
from ml.store.reading import read_yaml
from orchestration.resources import PROFILES
from orchestration.studies import GROUP


def config_of(profile: str) -> dict[str, object]:
    """The run config of a launch on a partition, which the launchpad shows when one is chosen:
    `profiles/<profile>.run.yaml`, or without one the profile's name.

    Raises ValueError, which the launchpad shows, for a file that holds no mapping.
    """
    own = ROOT / "profiles" / f"{profile}.run.yaml"
    if not own.is_file():
        return {"resources": {"project": {"config": {"profile": profile}}}}
    config = read_yaml(own)
    if not isinstance(config, dict):
        raise ValueError(
            f"{own}: expected a run config (resources: {{project: {{config: {{...}}}}}}), got "
            f"{type(config).__name__}"
        )
    return config


BY_PROFILE = dg.PartitionedConfig(PROFILES, run_config_for_partition_key_fn=config_of)

pipeline = dg.define_asset_job(
    "pipeline",
    config=BY_PROFILE,
    selection=dg.AssetSelection.all() - dg.AssetSelection.groups(GROUP),
    description="The whole graph with its checks: class names in, promoted segmenter out.",
)
data = dg.define_asset_job(
    "data",
    config=BY_PROFILE,
    selection=dg.AssetSelection.assets("prompts", "images", "masks", "triplets"),
    description="Prompts to accepted triplets.",
)
train_and_score = dg.define_asset_job(
    "train_and_score",
    config=BY_PROFILE,
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
    config=BY_PROFILE,
    selection=dg.AssetSelection.assets("promotion", "report"),
    description="The gate, the registry's aliases and the report.",
)
paper = dg.define_asset_job(
    "paper",
    selection=dg.AssetSelection.groups(GROUP),
    description="The paper's questions: every study and the page, as `make paper`.",
)

JOBS = [pipeline, data, train_and_score, promote, paper]
