"""What the run of a model holds: settings, scores, the data it was made from, its card."""

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ml.pipeline.facts import paths
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.manifest import Manifest
from orchestration.mlflow.model_card import model_card
from orchestration.mlflow.names import aliases, stored

RECORD = "champion"  # artifact folder of a run: what the gate compares with when it is champion
DIGEST_LENGTH = 36  # of an MLflow dataset; the whole sha256 stands in the run's tags
BATCH = 100  # metrics or parameters that a store takes at once


def log_content(
    client,
    run_id: str,
    model: str,
    made: Manifest,
    scores: Manifest,
    params: Params,
    workspace: Workspace,
) -> None:
    """Parameters, metrics, data set digests, the model card, and what a gate compares with.

    client: an MlflowClient of the store that is MLflow's current one.
    """
    import mlflow
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    from ml.pipeline.stages.promotion import write_record

    settings = paths(made.params)
    metrics = numbers(made.facts, "training") | numbers(scores.facts)
    _log_batches(client, run_id, settings, metrics)
    inputs = made.inputs | {f"scores: {key}": value for key, value in scores.inputs.items()}
    with mlflow.start_run(run_id=run_id):
        for stage, digest in inputs.items():
            source = CodeDatasetSource(tags={"stage": stage, "sha256": digest})
            mlflow.log_input(MetaDataset(source, name=stage, digest=digest[:DIGEST_LENGTH]))
        mlflow.log_text(model_card(model, made, scores), "model_card.md")
        if renamed := aliases([*settings, *metrics]):
            mlflow.log_dict(renamed, "names.json")
        with tempfile.TemporaryDirectory() as scratch:
            write_record(params, workspace, model, Path(scratch))
            mlflow.log_artifacts(scratch, RECORD)
        mlflow.set_tags(
            {
                "scores_sha": scores.digest,
                **{stored("input_sha", key): value for key, value in made.inputs.items()},
            }
        )


def _log_batches(client, run_id: str, settings: dict, metrics: dict) -> None:
    """In batches, since 254 classes have more metrics than a store takes at once. MLflow refuses
    another value for a parameter, so that a setting is logged once."""
    from mlflow.entities import Metric, Param

    known = client.get_run(run_id).data.params
    rows = [
        Param(stored(*path), str(value))
        for path, value in settings.items()
        if stored(*path) not in known
    ]
    for batch in _batches(rows):
        client.log_batch(run_id, params=batch)
    now = int(time.time() * 1000)
    for batch in _batches([Metric(stored(*p), value, now, 0) for p, value in metrics.items()]):
        client.log_batch(run_id, metrics=batch)


def numbers(facts: dict, *prefix: str) -> dict[tuple[str, ...], float]:
    """The finite numbers of nested facts by their path."""
    return {
        path: float(value)
        for path, value in paths(facts, *prefix).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _batches(rows: list) -> Iterator[list]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]
