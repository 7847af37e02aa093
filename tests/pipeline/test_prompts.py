"""Stage `prompts`: shards by purpose, in the schema, and the facts."""

import dataclasses

import pandas as pd

from ml.pipeline.runner import run_stage
from ml.settings.profile import load_params
from ml.store.shards import read_shards
from ml.store.sidecars import shard_files


def test_stage_writes_shards_by_purpose(tmp_path):
    params = load_params()
    wanted = dataclasses.replace(
        params.prompts,
        train_one=100,
        train_two=200,
        sim_per_cell=31,
        synthetic_one=90,
        synthetic_two=150,
    )
    params = dataclasses.replace(params, prompts=wanted)
    report = run_stage("prompts", params, tmp_path)
    folder = tmp_path / "data" / "micro" / "prompts"
    frame = read_shards(folder)
    assert len(frame) == report.facts["prompts"] == 695 and frame.key.is_unique
    for file in shard_files(folder):
        assert pd.read_parquet(file).purpose.nunique() == 1
    assert report.facts["cells"]["sim"]["two_unseen"] == 31 and report.facts["left_out"] == {}
    assert report.facts["classes"]["synthetic"]["sofa"] in (19, 20)  # (90 + 2 * 150) / 20 = 19.5
    assert run_stage("prompts", params, tmp_path).cached
