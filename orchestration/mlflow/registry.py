"""The model registry (MLflow): both models as versions, `challenger`, `champion`, `previous`.

A run stands for a model's manifest and is found again by the tag `manifest_sha`, so logging the
same model twice adds nothing. Each profile has registered models of its own, because a champion of
other words or another test set is none. Which model is better is decided in
`ml/pipeline/stages/promotion.py`; here aliases move, and only to a model that never held the title:
one that was taken down by hand stays down. MLflow is imported when a Registry is made: 3 s.
"""

import json
import math
import shutil
import tempfile
import time
from pathlib import Path

from ml.errors import ManifestError
from ml.pipeline.facts import paths
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.files import atomic, read_note, write_json
from ml.store.manifest import Manifest, read_manifest
from orchestration.mlflow.model_card import describe_version, model_card
from orchestration.mlflow.names import aliases, stored
from orchestration.mlflow.packaging import log_pyfunc
from orchestration.mlflow.tracking import PASSWORD, SQLITE, URL, USER, mask, with_login

MODELS = {"grounding": "grounding_model", "segmenter": "segmenter"}  # model -> stage
SCORES = {"grounding": "grounding_scores", "segmenter": "benchmark_scores"}  # -> its evidence
DEFAULT_PROFILE = "micro"  # its models are registered under their bare names
RECORD = "champion"  # artifact folder of a run: what the gate compares with when it is champion
TITLE, NEVER, HELD = "title", "never held", "held"  # tag of a version, and its values
DIGEST_LENGTH = 36  # of an MLflow dataset; the whole sha256 stands in the run's tags
BATCH = 100  # metrics or parameters that a store takes at once


def registered_name(model: str, profile: str) -> str:
    """What a model of a profile is called in the registry: "segmenter", "segmenter-yard"."""
    return model if profile == DEFAULT_PROFILE else stored(f"{model}-{profile}")


class Registry:
    """One MLflow store, for the models of one workspace."""

    def __init__(
        self, tracking_uri: str, artifacts: str | None, params: Params, workspace: Workspace
    ) -> None:
        """Opens the store, making it when it is not there (sqlite: 10 s the first time).

        artifacts: folder or URL, None for what the server decides. Raises ValueError when it can't
        be opened, or the profile's experiment keeps its artifacts at another URL already.
        """
        import mlflow
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        self.params, self.workspace = params, workspace
        self.names = {model: registered_name(model, params.profile) for model in MODELS}
        address = with_login(tracking_uri)
        try:
            if address.startswith(SQLITE):
                Path(address.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
            mlflow.set_tracking_uri(address)
            mlflow.set_registry_uri(address)
            self.mlflow, self.client = mlflow, mlflow.MlflowClient()
            self.experiment = self._experiment(f"words-to-masks {params.profile}", artifacts)
        except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
            said = (mask(str(error)).splitlines() or [type(error).__name__])[0]
            raise ValueError(
                f"the registry {tracking_uri} can't be opened: {said}; look at "
                f"tracking_uri, at the server, and at {USER} and {PASSWORD} in the "
                "environment"
            ) from None  # its traceback may hold the password

    def _experiment(self, name: str, artifacts: str | None) -> str:
        """The id of the profile's experiment, found or made."""
        is_url = artifacts is not None and URL.match(artifacts) is not None
        if (known := self.client.get_experiment_by_name(name)) is None:
            own = artifacts if is_url or artifacts is None else Path(artifacts).resolve().as_uri()
            return self.client.create_experiment(name, artifact_location=own)
        if known.lifecycle_stage == "deleted":
            raise ValueError(
                f"the experiment {name!r} was deleted and keeps its name: restore it "
                f"(`mlflow experiments restore -x {known.experiment_id}`), or take "
                "another tracking_uri"
            )
        moved = (
            is_url
            and not artifacts.startswith("file:")
            and artifacts.rstrip("/") != (known.artifact_location.rstrip("/"))
        )
        if moved:
            raise ValueError(
                f"artifacts: {artifacts!r}, but the experiment {name!r} keeps its "
                f"artifacts at {known.artifact_location!r} since it was made, and a "
                "store can't move them: leave `artifacts` as it was, or take another "
                "tracking_uri"
            )
        return known.experiment_id

    def log_challengers(self) -> dict[str, str]:
        """Both trained models as registered versions with the alias `challenger`; their URIs."""
        return {model: self.log_challenger(model) for model in MODELS}

    def log_challenger(self, model: str) -> str:
        """Registers a model unless that was done; its scores are logged again when they changed.

        Raises ManifestError when the scores are another model's.
        """
        name, made = self.names[model], read_manifest(self.workspace.folder(MODELS[model]))
        scores = read_manifest(self.workspace.folder(SCORES[model]))
        if scores.inputs.get(MODELS[model]) != made.digest:
            raise ManifestError(
                f"{self.workspace.folder(SCORES[model])} holds the scores of another model than "
                f"{self.workspace.folder(MODELS[model])}, which can't be logged as its own: run "
                f"`python -m ml {SCORES[model]} --profile {self.params.profile}`"
            )
        run, version = self._run(model, made), self.version_of(model, made.digest)
        if version is not None:  # before its record is written, by which old versions are known
            self._set_title(model, version, HELD if self._held(model, version) else NEVER)
        recorded = self.client.list_artifacts(run.info.run_id, RECORD)
        if run.data.tags.get("scores_sha") != scores.digest or not recorded:
            self._log_facts(model, run.info.run_id, made, scores)
        if version is None:
            with self.mlflow.start_run(run_id=run.info.run_id):
                version = log_pyfunc(model, name, self.workspace, self.params)
        if "manifest_sha" not in self.client.get_model_version(name, version).tags:
            self._set_title(model, version, NEVER)
            self.client.update_model_version(name, version, describe_version(model, made, scores))
            self.client.set_model_version_tag(name, version, "manifest_sha", made.digest)
        if self.alias(model, "challenger") != version:
            self.client.set_registered_model_alias(name, "challenger", version)
        return f"models:/{name}/{version}"

    def _run(self, model: str, made: Manifest):
        """The run of a model, found by its tags or made."""
        if found := self._runs(model, made.digest):
            return found[0]
        tags = {
            "manifest_sha": made.digest,
            "registered_name": model,
            "profile": self.params.profile,
        }
        return self.client.create_run(
            self.experiment, tags=tags, run_name=f"{model} {made.digest[:8]}"
        )

    def _runs(self, model: str, manifest_sha: str) -> list:
        return self.client.search_runs(
            [self.experiment],
            f"tags.manifest_sha = '{manifest_sha}' and tags.registered_name = '{model}'",
        )

    def _log_facts(self, model: str, run_id: str, made: Manifest, scores: Manifest) -> None:
        """Parameters, metrics, data set digests, the model card, and what a gate compares with."""
        from mlflow.data.code_dataset_source import CodeDatasetSource
        from mlflow.data.meta_dataset import MetaDataset

        from ml.pipeline.stages.promotion import write_record

        mlflow, settings = self.mlflow, paths(made.params)
        metrics = numbers(made.facts, "training") | numbers(scores.facts)
        self._log_batches(run_id, settings, metrics)
        inputs = made.inputs | {f"scores: {key}": value for key, value in scores.inputs.items()}
        with mlflow.start_run(run_id=run_id):
            for stage, digest in inputs.items():
                source = CodeDatasetSource(tags={"stage": stage, "sha256": digest})
                mlflow.log_input(MetaDataset(source, name=stage, digest=digest[:DIGEST_LENGTH]))
            mlflow.log_text(model_card(model, made, scores), "model_card.md")
            if renamed := aliases([*settings, *metrics]):
                mlflow.log_dict(renamed, "names.json")
            with tempfile.TemporaryDirectory() as scratch:
                write_record(self.params, self.workspace, model, Path(scratch))
                mlflow.log_artifacts(scratch, RECORD)
            mlflow.set_tags(
                {
                    "scores_sha": scores.digest,
                    **{stored("input_sha", key): value for key, value in made.inputs.items()},
                }
            )

    def _log_batches(self, run_id: str, settings: dict, metrics: dict) -> None:
        """A store takes so many at once, and 254 classes have more. A setting is logged once."""
        from mlflow.entities import Metric, Param

        known = self.client.get_run(run_id).data.params
        rows = [
            Param(stored(*path), str(value))
            for path, value in settings.items()
            if stored(*path) not in known
        ]
        for part in _parts(rows):
            self.client.log_batch(run_id, params=part)
        now = int(time.time() * 1000)
        for part in _parts([Metric(stored(*p), value, now, 0) for p, value in metrics.items()]):
            self.client.log_batch(run_id, metrics=part)

    def version_of(self, model: str, manifest_sha: str, name: str = "") -> str | None:
        """The registered version of a model's manifest, also one whose tagging was cut off.

        name: of the registered model, by default this profile's.
        """
        runs = {run.info.run_id for run in self._runs(model, manifest_sha)}
        found = self.client.search_model_versions(f"name = '{name or self.names[model]}'")
        versions = [v.version for v in found if v.run_id in runs]
        return str(min(versions, key=int)) if versions else None

    def alias(self, model: str, alias: str) -> str | None:
        """The version that an alias points to, None without one."""
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_model_version_by_alias(self.names[model], alias).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise  # a server that doesn't answer has not said that there is no champion

    def champions(self) -> dict[str, str]:
        """Model URI by model, of those that have a champion."""
        found = {model: self.alias(model, "champion") for model in MODELS}
        return {
            model: f"models:/{self.names[model]}/{version}"
            for model, version in found.items()
            if version
        }

    def sync_champions(self) -> bool:
        """Makes the champions on record those of the registry, for the gate to compare with.

        True when a record changed, so that an old verdict is void.
        """
        return any([self._sync_champion(model) for model in MODELS])

    def _sync_champion(self, model: str) -> bool:
        folder = champion_folder(self.workspace, model)
        version, record = self.alias(model, "champion"), champion_record(self.workspace, model)
        if version is None and record is not None:
            version = self._adopt(model, record["digest"])
        if version is None:  # a record without a model, as after the registry was removed
            orphan = record is not None and self.version_of(model, record["digest"]) is None
            if orphan:
                shutil.rmtree(folder)
            return orphan
        champion = self.client.get_model_version(self.names[model], version)
        if record is not None and record["digest"] == champion.tags.get("manifest_sha"):
            return False
        if not self.client.list_artifacts(champion.run_id, RECORD):
            raise ValueError(
                f"champion of {self.names[model]!r} is version {version}, whose run "
                f"has no scores to compare with (no artifacts {RECORD}/): run the "
                "job `promote` where it was made, or give the alias `champion` to "
                "another version"
            )
        former = self._former(model) | set((record or {}).get("former", []))
        with tempfile.TemporaryDirectory() as scratch, atomic(folder) as temporary:
            shutil.copytree(
                self.mlflow.artifacts.download_artifacts(
                    run_id=champion.run_id, artifact_path=RECORD, dst_path=scratch
                ),
                temporary,
            )
            own = json.loads((temporary / "record.json").read_text())
            write_json(
                temporary / "record.json", own | {"former": sorted(former - {own["digest"]})}
            )
        return True

    def _adopt(self, model: str, digest: str) -> str | None:
        """Takes over the champion of a registry in which all profiles shared the bare names."""
        name = self.names[model]
        if name == model or self.version_of(model, digest) is not None:
            return None
        if (old := self.version_of(model, digest, name=model)) is None:
            return None
        version = str(self.client.copy_model_version(f"models:/{model}/{old}", name).version)
        self.client.set_model_version_tag(name, version, "manifest_sha", digest)
        self._set_title(model, version, HELD)
        self.client.set_registered_model_alias(name, "champion", version)
        return version

    def _former(self, model: str) -> set[str]:
        """Digests of the models that hold the title or held it once."""
        found = self.client.search_model_versions(f"name = '{self.names[model]}'")
        return {
            v.tags["manifest_sha"]
            for v in found
            if "manifest_sha" in v.tags and self._held(model, str(v.version))
        }

    def _held(self, model: str, version: str) -> bool:
        """Whether a version holds the title of champion, or held it once."""
        said = self.client.get_model_version(self.names[model], version)
        if TITLE in said.tags:
            return said.tags[TITLE] == HELD
        # Before there was the tag, champions alone had their scores among their artifacts. A
        # version without its digest is one whose registration was cut off.
        return "manifest_sha" in said.tags and bool(self.client.list_artifacts(said.run_id, RECORD))

    def _set_title(self, model: str, version: str, title: str) -> None:
        self.client.set_model_version_tag(self.names[model], version, TITLE, title)

    def apply_verdict(self) -> dict[str, str]:
        """Moves `champion` to the model that won the title by the verdict, keeping `previous`.

        Returns the champions' URIs and the verdicts' reasons.
        """
        path = self.workspace.folder("promotion") / "verdict.json"
        verdict = json.loads(path.read_text())
        for model, stage in MODELS.items():
            candidate = read_manifest(self.workspace.folder(stage), verify=False).digest
            self.client.set_model_version_tag(
                self.names[model],
                self.version_of(model, candidate),
                "verdict",
                verdict[model]["reason"],
            )
            if digest := verdict[model]["digest_after"]:
                self._crown(model, digest)
        shown = {f"champion_{model}": uri for model, uri in self.champions().items()}
        return shown | {f"verdict_{model}": verdict[model]["reason"] for model in MODELS}

    def _crown(self, model: str, digest: str) -> None:
        version = self.version_of(model, digest)
        if version is not None and not self._held(model, version):
            self.move_title(model, version)

    def move_title(self, model: str, version: str) -> None:
        """Gives `champion` to a version, whatever the gate says, and `previous` to the one before.

        The title is tagged last, so that a move that was cut off is finished by the next one.
        """
        name, champion = self.names[model], self.alias(model, "champion")
        if champion is not None and champion != version:
            self._set_title(model, champion, HELD)
            self.client.set_registered_model_alias(name, "previous", champion)
        self.client.set_registered_model_alias(name, "champion", version)
        self._set_title(model, version, HELD)


def champion_folder(workspace: Workspace, model: str) -> Path:
    """Where `ml/pipeline/stages/promotion.py` keeps the champion on record."""
    return workspace.data / "champion" / model


def champion_record(workspace: Workspace, model: str) -> dict | None:
    """Whose record it is; None without a readable one, which the registry then brings back."""
    return read_note(champion_folder(workspace, model) / "record.json", {"digest": str})


def numbers(facts: dict, *prefix: str) -> dict[tuple[str, ...], float]:
    """The finite numbers of nested facts by their path."""
    return {
        path: float(value)
        for path, value in paths(facts, *prefix).items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _parts(rows: list) -> list[list]:
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]
