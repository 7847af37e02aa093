"""Tables of models and scores for the checks: training curves and the numbers of `metrics.json`."""

import json

import numpy as np
import pandas as pd

from ml.pipeline.facts import flatten
from ml.pipeline.workspace import Workspace
from ml.quality.frames import Tables, one_row
from ml.settings.params import Params
from ml.store.manifest import read_manifest
from ml.store.objects import below


def curve_tables(workspace: Workspace, stage: str) -> Tables:
    """The loss at every step, and how the last quarter compares with the first."""
    folder = workspace.folder(stage)
    with (folder / "curve.csv").open() as file:
        curve = pd.read_csv(file).dropna(subset=["step"])
    loss = curve["loss"].astype(float).where(np.isfinite)  # an infinite one is no number either
    quarter = max(len(loss) // 4, 1)
    ratio = loss.tail(quarter).mean() / max(abs(loss.head(quarter).mean()), 1e-9)
    weights = [path for path in below(folder) if path.suffix == ".safetensors"]
    return {
        "loss": pd.DataFrame({"loss": loss}),
        "total": one_row(
            last_to_first_loss=float(ratio),
            expected_weights=True,
            weights=sum(path.stat().st_size for path in weights) > 0,
        ),
    }


def grounding_model_tables(params: Params, workspace: Workspace) -> Tables:
    return curve_tables(workspace, "grounding_model")


def segmenter_tables(params: Params, workspace: Workspace) -> Tables:
    return curve_tables(workspace, "segmenter")


def real_bound_tables(params: Params, workspace: Workspace) -> Tables:
    facts = read_manifest(workspace.folder("real_bound"), verify=False).facts
    if facts.get("model", True):
        return curve_tables(workspace, "real_bound")
    # Nothing was trained, and the facts say why: no step whose loss could be wrong.
    return {
        "loss": one_row(loss=0.0, note=facts["why"]),
        "total": one_row(
            last_to_first_loss=0.0,
            expected_weights=False,
            weights=any(workspace.folder("real_bound").rglob("*.safetensors")),
        ),
    }


def score_tables(workspace: Workspace, stage: str, heads: tuple[str, ...]) -> Tables:
    """One row per number below the named heads of a stage's metrics, and one row of all."""
    metrics = json.loads((workspace.folder(stage) / "metrics.json").read_text())
    flat = {
        name: float("nan") if value is None else float(value)
        for head in heads
        for name, value in flatten(metrics[head], f"{head}/").items()
        if value is None or isinstance(value, int | float)
    }
    frame = pd.DataFrame({"score": list(flat), "value": list(flat.values())})
    return {"scores": frame.dropna(), "total": pd.DataFrame([flat])}


def grounding_score_tables(params: Params, workspace: Workspace) -> Tables:
    return score_tables(workspace, "grounding_scores", ("ours", "daam"))


def benchmark_score_tables(params: Params, workspace: Workspace) -> Tables:
    metrics = json.loads((workspace.folder("benchmark_scores") / "metrics.json").read_text())
    heads = [name for name in ("synthetic", "real_upper_bound") if name in metrics]
    made = score_tables(workspace, "benchmark_scores", tuple(heads))
    # A benchmark of the unseen classes only has no score over seen ones.
    checked = {name: metrics[name].get("seen", metrics[name].get("all")) for name in heads}
    made["total"]["synthetic/checked"] = checked["synthetic"]
    made["models"] = pd.DataFrame({"model": list(checked), "score": list(checked.values())})
    return made
