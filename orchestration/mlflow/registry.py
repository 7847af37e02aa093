"""The model registry (MLflow): both models as versions, `challenger`, `champion`, `previous`.

A run belongs to one manifest of a model and is found again by the tag `manifest_sha`, so that
logging the same model twice adds nothing. Each profile has registered models of its own, because
models for other words or another test set can't be compared. Which model is better is decided in
`ml/pipeline/stages/promotion.py`; here the aliases move, and `champion` only to a model that never
had it, so that a model which was demoted by hand is not promoted again. MLflow is imported when a
Registry is made, which takes 3 s.
"""

import json

from ml.errors import ManifestError
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.manifest import Manifest, read_manifest
from orchestration.mlflow.experiment import open_experiment
from orchestration.mlflow.model_card import describe_version
from orchestration.mlflow.names import stored
from orchestration.mlflow.packaging import log_pyfunc
from orchestration.mlflow.record import champion_record, remove_record, restore_record
from orchestration.mlflow.run_content import CONTENT, RECORD, log_content
from orchestration.resources import DEFAULT

MODELS = {"grounding": "grounding_model", "segmenter": "segmenter"}  # model -> stage
SCORES = {"grounding": "grounding_scores", "segmenter": "benchmark_scores"}  # -> its evidence
TITLE, NEVER, HELD = "title", "never held", "held"  # tag of a version, and its values


def registered_name(model: str, profile: str) -> str:
    """What a model of a profile is called in the registry: "segmenter-yard", or "segmenter" for the
    default profile."""
    return model if profile == DEFAULT else stored(f"{model}-{profile}")


class Registry:
    """One MLflow store, for the models of one workspace."""

    def __init__(
        self, tracking_uri: str, artifacts: str | None, params: Params, workspace: Workspace
    ) -> None:
        """Opens the store as `open_experiment` does, with its errors."""
        import mlflow

        self.params, self.workspace = params, workspace
        self.names = {model: registered_name(model, params.profile) for model in MODELS}
        self.experiment = open_experiment(
            tracking_uri, f"words-to-masks {params.profile}", artifacts
        )
        self.mlflow, self.client = mlflow, mlflow.MlflowClient()

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
        if version is not None:  # first: `_held` reads the record of versions without this tag
            self._set_title(model, version, HELD if self._held(model, version) else NEVER)
        recorded = self.client.list_artifacts(run.info.run_id, RECORD)
        held = (run.data.tags.get("scores_sha"), run.data.tags.get("content"))
        if held != (scores.digest, CONTENT) or not recorded:
            log_content(
                self.client, run.info.run_id, model, made, scores, self.params, self.workspace
            )
        if version is None:
            self._remove_unregistered(run.info.run_id)
            with self.mlflow.start_run(run_id=run.info.run_id):
                version = log_pyfunc(model, name, self.workspace, self.params)
        if "manifest_sha" not in self.client.get_model_version(name, version).tags:
            self._set_title(model, version, NEVER)
            self.client.update_model_version(name, version, describe_version(model, made, scores))
            self.client.set_model_version_tag(name, version, "manifest_sha", made.digest)
        if self.alias(model, "challenger") != version:
            self.client.set_registered_model_alias(name, "challenger", version)
        return f"models:/{name}/{version}"

    def _remove_unregistered(self, run_id: str) -> None:
        """Removes what a run that was killed had logged of its model, and not registered."""
        for logged in self.client.search_logged_models([self.experiment]):
            if logged.source_run_id == run_id:
                self.client.delete_logged_model(logged.model_id)

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
            self.experiment, tags=tags, run_name=f"{self.names[model]} {made.digest[:8]}"
        )

    def _runs(self, model: str, manifest_sha: str) -> list:
        return self.client.search_runs(
            [self.experiment],
            f"tags.manifest_sha = '{manifest_sha}' and tags.registered_name = '{model}'",
        )

    def version_of(self, model: str, manifest_sha: str, name: str = "") -> str | None:
        """The registered version of a model's manifest, even if it was not tagged before a kill.

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
            raise  # a server that doesn't answer doesn't mean that there is no champion

    def champions(self) -> dict[str, str]:
        """Model URI by model, of those that have a champion."""
        found = {model: self.alias(model, "champion") for model in MODELS}
        return {
            model: f"models:/{self.names[model]}/{version}"
            for model, version in found.items()
            if version
        }

    def sync_champions(self) -> None:
        """Makes the champions on record those of the registry, for the gate to compare with."""
        for model in MODELS:
            self._sync_champion(model)

    def _sync_champion(self, model: str) -> None:
        version, record = self.alias(model, "champion"), champion_record(self.workspace, model)
        if version is None and record is not None:
            version = self._adopt(model, record["digest"])
        if version is None:  # a record without a model, as after the registry was removed
            if record is not None and self.version_of(model, record["digest"]) is None:
                remove_record(self.workspace, model)
            return
        champion = self.client.get_model_version(self.names[model], version)
        if record is not None and record["digest"] == champion.tags.get("manifest_sha"):
            return
        if not self.client.list_artifacts(champion.run_id, RECORD):
            raise ValueError(
                f"champion of {self.names[model]!r} is version {version}, whose run "
                f"has no scores to compare with (no artifacts {RECORD}/): run the "
                "job `promote` where it was made, or give the alias `champion` to "
                "another version"
            )
        former = self._former(model) | set((record or {}).get("former", []))
        restore_record(self.workspace, model, champion.run_id, former)

    def _adopt(self, model: str, digest: str) -> str | None:
        """Copies the champion of an old registry, in which all profiles shared the bare names."""
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
        found = self.client.get_model_version(self.names[model], version)
        if TITLE in found.tags:
            return found.tags[TITLE] == HELD
        # Before this tag was introduced, only champions had their scores among their artifacts. A
        # version without its digest is one whose registration was interrupted.
        return "manifest_sha" in found.tags and bool(
            self.client.list_artifacts(found.run_id, RECORD)
        )

    def _set_title(self, model: str, version: str, title: str) -> None:
        self.client.set_model_version_tag(self.names[model], version, TITLE, title)

    def apply_verdict(self) -> dict[str, str]:
        """Moves `champion` to the model that won the title by the verdict, keeping `previous`.

        Returns the champions' URIs and the verdicts' reasons. Raises ValueError when the registry's
        champion is another than the one that the winner was compared with.
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
            self._crown(model, verdict[model])
        shown = {f"champion_{model}": uri for model, uri in self.champions().items()}
        return shown | {f"verdict_{model}": verdict[model]["reason"] for model in MODELS}

    def _crown(self, model: str, verdict: dict) -> None:
        digest = verdict["digest_after"]
        version = self.version_of(model, digest) if digest else None
        if version is None or self._held(model, version):
            return
        champion, beaten = (
            self.alias(model, "champion"),
            (verdict.get("champion") or {}).get("digest"),
        )
        if champion not in (None, version, beaten and self.version_of(model, beaten)):
            raise ValueError(
                f"version {champion} of {self.names[model]!r} became champion while version "
                f"{version} was compared with another: materialize `promotion` again, which "
                "compares it with the new one"
            )
        self.move_title(model, version)

    def move_title(self, model: str, version: str) -> None:
        """Gives `champion` to a version, whatever the gate says, and `previous` to the one before.

        The title is tagged last, so that a move that was interrupted is finished by the next one.
        """
        name, champion = self.names[model], self.alias(model, "champion")
        if champion is not None and champion != version:
            self._set_title(model, champion, HELD)
            self.client.set_registered_model_alias(name, "previous", champion)
        self.client.set_registered_model_alias(name, "champion", version)
        self._set_title(model, version, HELD)
