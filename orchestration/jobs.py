"""The jobs: which assets run together. A job takes the checks of its assets along."""

import dagster as dg

from orchestration import assets as a

pipeline = dg.define_asset_job(
    "pipeline", selection=dg.AssetSelection.all(),
    description="The whole graph with its checks: class names in, promoted segmenter out.")
data = dg.define_asset_job(
    "data", selection=dg.AssetSelection.assets(a.prompts, a.images, a.masks, a.triplets),
    description="Prompts to accepted triplets.")
train_and_score = dg.define_asset_job(
    "train_and_score",
    selection=dg.AssetSelection.assets(
        a.benchmark, a.grounding_model, a.grounding_scores, a.synthetic_dataset, a.segmenter,
        a.real_bound, a.benchmark_scores),
    description="From triplets to both protocols' scores.")
promote = dg.define_asset_job(
    "promote", selection=dg.AssetSelection.assets(a.promotion, a.report),
    description="The gate, the registry's aliases and the report.")

JOBS = [pipeline, data, train_and_score, promote]
