"""What the run of a model holds: settings, scores, the curve of its training, pictures, the data it
was made from, its card.

Names are those of the stages' facts, the same in every profile and split, so that runs of several
experiments stand beside one another in MLflow's comparison.
"""

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ml.pipeline.curve import draw_curve, read_curve
from ml.pipeline.facts import paths
from ml.pipeline.table import STAGE
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.manifest import Manifest
from orchestration.mlflow.model_card import model_card
from orchestration.mlflow.names import aliases, stored

RECORD = "champion"  # artifact folder of a run: what the gate compares with when it is champion
DIGEST_LENGTH = 36  # of an MLflow dataset; the whole sha256 stands in the run's tags
MOST_PARAMS, MOST_METRICS = 100, 1000  # that a store takes at once
POINTS = 500  # of a curve, at most
CONTENT = "2"  # raised when a run holds more than before: older runs are completed


def log_content(
    client,
    run_id: str,
    model: str,
    made: Manifest,
    scores: Manifest,
    params: Params,
    workspace: Workspace,
) -> None:
    """Parameters, metrics, curves, pictures, data set digests, the model card, and what a gate
    compares with.

    client: an MlflowClient of the store that is MLflow's current one.
    """
    import mlflow
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset

    from ml.pipeline.stages.promotion import write_record

    settings = paths(made.params)
    metrics = numbers(made.facts, "training") | numbers(scores.facts)
    _log_batches(client, run_id, settings, metrics)
    _log_curve(client, run_id, workspace.folder(made.stage))
    inputs = [(key, key, value, "training") for key, value in made.inputs.items()]
    inputs += [(f"scores: {key}", key, value, "scores") for key, value in scores.inputs.items()]
    with mlflow.start_run(run_id=run_id):
        for name, stage, digest, context in inputs:
            source = CodeDatasetSource(tags={"stage": stage, "sha256": digest})
            data = MetaDataset(source, name=name, digest=digest[:DIGEST_LENGTH])
            mlflow.log_input(data, context=context)
        mlflow.log_text(model_card(model, made, scores), "model_card.md")
        if renamed := aliases([*settings, *metrics]):
            mlflow.log_dict(renamed, "names.json")
        with tempfile.TemporaryDirectory() as scratch:
            write_record(params, workspace, model, Path(scratch))
            mlflow.log_artifacts(scratch, RECORD)
        with tempfile.TemporaryDirectory() as scratch:
            for stage in (made.stage, scores.stage, *made.inputs):
                write_pictures(workspace, stage, Path(scratch))
            mlflow.log_artifacts(scratch, "pictures")
        mlflow.set_tags(
            {
                "scores_sha": scores.digest,
                "content": CONTENT,
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
    for batch in _batches(rows, MOST_PARAMS):
        client.log_batch(run_id, params=batch)
    now = int(time.time() * 1000)
    points = [Metric(stored(*path), value, now, 0) for path, value in metrics.items()]
    for batch in _batches(points, MOST_METRICS):
        client.log_batch(run_id, metrics=batch)


def _log_curve(client, run_id: str, folder: Path) -> None:
    """The columns of a training's `curve.csv` as metrics "curve/<column>" over its steps: once,
    since a run belongs to one training."""
    from mlflow.entities import Metric

    known, now = client.get_run(run_id).data.metrics, int(time.time() * 1000)
    curves = read_curve(folder / "curve.csv") if (folder / "curve.csv").is_file() else {}
    points = [
        Metric(name, value, now, int(step))
        for column, steps in curves.items()
        if (name := stored("curve", column)) not in known
        for step, value in _thinned(steps)
    ]
    for batch in _batches(points, MOST_METRICS):
        client.log_batch(run_id, metrics=batch)


def _thinned(points: list) -> list:
    """At most POINTS of them, evenly spread, the last one always."""
    stride = -(-len(points) // POINTS)
    return points[(len(points) - 1) % stride :: stride]


def write_pictures(workspace: Workspace, stage: str, target: Path) -> None:
    """The contact sheet and the drawn training curve of a stage's folder, if it has them."""
    if stage not in STAGE:  # a model's setting among the inputs
        return
    sheet, curve = (workspace.folder(stage) / n for n in ("contact_sheet.jpg", "curve.csv"))
    if sheet.is_file():
        (target / f"{stage}.jpg").write_bytes(sheet.read_bytes())
    if curve.is_file() and (drawn := draw_curve(curve)):
        (target / f"{stage} curve.png").write_bytes(drawn)


def numbers(facts: dict, *prefix: str) -> dict[tuple[str, ...], float]:
    """The finite numbers of nested facts by their path."""
    return {
        path: float(value)
        for path, value in paths(facts, *prefix).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _batches(rows: list, most: int) -> Iterator[list]:
    for start in range(0, len(rows), most):
        yield rows[start : start + most]
