"""The model registry (MLflow): both models as versions, `challenger`, `champion`, `previous`.

A run stands for a model's manifest and is found again by the tag `manifest_sha`, so logging the
same model twice adds nothing. Which model is better is decided in `ml/stages/promotion.py`; here
aliases move. MLflow is imported when a Registry is made: 3 s.
"""

import json
import math
import shutil
import tempfile
from pathlib import Path

from ml.files import atomic, read_note
from ml.manifest import Manifest, read_manifest
from ml.params import Params
from ml.stages import Workspace
from orchestration.metadata import flatten
from orchestration.model_card import model_card
from orchestration.packaging import log_pyfunc

MODELS = {"grounding": "grounding_model", "segmenter": "segmenter"}  # registered name -> stage
SCORES = {"grounding": "grounding_scores", "segmenter": "benchmark_scores"}  # -> its evidence
RECORD = "champion"  # artifact folder of a champion's run: what the gate compares with
DIGEST_LENGTH = 36  # of an MLflow dataset; the whole sha256 stands in the run's tags


class Registry:
    """One MLflow store, for the models of one workspace."""

    def __init__(self, tracking_uri: str, artifacts: str, params: Params,
                 workspace: Workspace) -> None:
        """Opens the store, making it when it is not there (sqlite: 10 s the first time)."""
        import mlflow

        self.params, self.workspace = params, workspace
        if tracking_uri.startswith("sqlite:///"):
            Path(tracking_uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(tracking_uri)
        mlflow.set_registry_uri(tracking_uri)
        self.mlflow, self.client = mlflow, mlflow.MlflowClient()
        name = f"words-to-masks {params.profile}"
        known = self.client.get_experiment_by_name(name)
        self.experiment = known.experiment_id if known else self.client.create_experiment(
            name, artifact_location=Path(artifacts).resolve().as_uri())

    def log_challengers(self) -> dict[str, str]:
        """Both trained models as registered versions with the alias `challenger`; their URIs."""
        return {name: self.log_challenger(name) for name in MODELS}

    def log_challenger(self, name: str) -> str:
        """Registers a model unless that was done; its scores are logged again when they changed."""
        model = read_manifest(self.workspace.folder(MODELS[name]))
        scores = read_manifest(self.workspace.folder(SCORES[name]))
        run = self._run(name, model)
        if run.data.tags.get("scores_sha") != scores.digest:
            self._log_facts(name, run.info.run_id, model, scores)
        version = self.version_of(name, model.digest)
        if version is None:
            with self.mlflow.start_run(run_id=run.info.run_id):
                version = log_pyfunc(name, self.workspace, self.params)
            self.client.set_model_version_tag(name, version, "manifest_sha", model.digest)
            self.client.update_model_version(name, version, model_card(name, model, scores))
        if self.alias(name, "challenger") != version:
            self.client.set_registered_model_alias(name, "challenger", version)
        return f"models:/{name}/{version}"

    def _run(self, name: str, model: Manifest):
        """The run of a model, found by its tags or made."""
        found = self.client.search_runs(
            [self.experiment],
            f"tags.manifest_sha = '{model.digest}' and tags.registered_name = '{name}'")
        if found:
            return found[0]
        tags = {"manifest_sha": model.digest, "registered_name": name,
                "profile": self.params.profile}
        return self.client.create_run(self.experiment, tags=tags,
                                      run_name=f"{name} {model.digest[:8]}")

    def _log_facts(self, name: str, run_id: str, model: Manifest, scores: Manifest) -> None:
        """Parameters, metrics, data set digests and the model card."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        mlflow = self.mlflow
        inputs = model.inputs | {f"scores: {key}": value for key, value in scores.inputs.items()}
        with mlflow.start_run(run_id=run_id):
            mlflow.log_params({k: str(v) for k, v in flatten(model.params).items()})
            mlflow.log_metrics(numbers(model.facts, "training/") | numbers(scores.facts))
            for stage, digest in inputs.items():
                source = CodeDatasetSource(tags={"stage": stage, "sha256": digest})
                mlflow.log_input(MetaDataset(source, name=stage, digest=digest[:DIGEST_LENGTH]))
            mlflow.log_text(model_card(name, model, scores), "model_card.md")
            mlflow.set_tags({"scores_sha": scores.digest,
                             **{f"input_sha/{k}": v for k, v in model.inputs.items()}})

    def version_of(self, name: str, manifest_sha: str) -> str | None:
        """The registered version of a model's manifest, also one whose tagging was cut off."""
        runs = {run.info.run_id for run in self.client.search_runs(
            [self.experiment],
            f"tags.manifest_sha = '{manifest_sha}' and tags.registered_name = '{name}'")}
        versions = [v.version for v in self.client.search_model_versions(f"name = '{name}'")
                    if v.run_id in runs]
        return str(min(versions, key=int)) if versions else None

    def alias(self, name: str, alias: str) -> str | None:
        """The version that an alias points to, None without one."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_model_version_by_alias(name, alias).version)
        except MlflowException:
            return None

    def champions(self) -> dict[str, str]:
        """Model URI by registered name, of those that have a champion."""
        found = {name: self.alias(name, "champion") for name in MODELS}
        return {name: f"models:/{name}/{version}" for name, version in found.items() if version}

    def sync_champions(self) -> bool:
        """Makes the champions on record those of the registry, for the gate to compare with.

        True when a record changed, so that an old verdict is void.
        """
        return any([self._sync_champion(name) for name in MODELS])

    def _sync_champion(self, name: str) -> bool:
        version, folder = self.alias(name, "champion"), champion_folder(self.workspace, name)
        record = champion_record(self.workspace, name)
        if version is None:  # a record without a model, as after the registry was removed
            orphan = record is not None and self.version_of(name, record["digest"]) is None
            if orphan:
                shutil.rmtree(folder)
            return orphan
        champion = self.client.get_model_version(name, version)
        if record is not None and record["digest"] == champion.tags.get("manifest_sha"):
            return False
        with tempfile.TemporaryDirectory() as scratch, atomic(folder) as temporary:
            shutil.copytree(self.mlflow.artifacts.download_artifacts(
                run_id=champion.run_id, artifact_path=RECORD, dst_path=scratch), temporary)
        return True

    def apply_verdict(self) -> dict[str, str]:
        """Moves `champion` to the model that holds the title by the verdict, keeping `previous`.

        Returns the champions' URIs and the verdicts' reasons.
        """
        path = self.workspace.folder("promotion") / "verdict.json"
        verdict = json.loads(path.read_text())
        for name, stage in MODELS.items():
            candidate = read_manifest(self.workspace.folder(stage), verify=False).digest
            self.client.set_model_version_tag(name, self.version_of(name, candidate), "verdict",
                                              verdict[name]["reason"])
            if digest := verdict[name]["digest_after"]:
                self._crown(name, digest)
        shown = {f"champion_{name}": uri for name, uri in self.champions().items()}
        return shown | {f"verdict_{name}": verdict[name]["reason"] for name in MODELS}

    def _crown(self, name: str, digest: str) -> None:
        version, champion = self.version_of(name, digest), self.alias(name, "champion")
        if version is None or version == champion:
            return
        run_id = self.client.get_model_version(name, version).run_id
        self.client.log_artifacts(run_id, str(champion_folder(self.workspace, name)), RECORD)
        if champion is not None:
            self.client.set_registered_model_alias(name, "previous", champion)
        self.client.set_registered_model_alias(name, "champion", version)


def champion_folder(workspace: Workspace, name: str) -> Path:
    """Where `ml/stages/promotion.py` keeps the champion on record."""
    return workspace.data / "champion" / name


def champion_record(workspace: Workspace, name: str) -> dict | None:
    """Whose record it is; None without one that can be read, which the registry then brings back.
    """
    return read_note(champion_folder(workspace, name) / "record.json", {"digest": str})


def numbers(facts: dict, prefix: str = "") -> dict[str, float]:
    """The finite numbers of nested facts as MLflow metrics."""
    return {name: float(value) for name, value in flatten(facts, prefix).items()
            if isinstance(value, int | float) and math.isfinite(value)}
