"""The one resource: which checkout, which profile, which model registry.

It holds settings and paths only: nothing is opened, and no heavy package imported, when Dagster
loads the definitions. A profile is also a partition of every asset and check, so that each profile
has a history of its own.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import ROOT, load_params
from orchestration.home import home_of
from orchestration.mlflow.tracking import masked_values, resolve

DEFAULT = "micro"
PARTITION = "dagster/partition"  # the run's tag that Dagster reads


def known_profiles() -> list[str]:
    """The default profile and those in profiles/."""
    files = (file.name for file in (ROOT / "profiles").glob("*.yaml"))
    names = {name.removesuffix(".yaml") for name in files if not name.endswith(".run.yaml")}
    return sorted({DEFAULT, *(name for name in names if not name.startswith("paper"))})


class Profiles(dg.DynamicPartitionsDefinition):
    """Includes those of profiles/ even in a new history, where no run has added any yet."""

    def has_partition_key(self, partition_key: str, *args, **more) -> bool:
        return partition_key in known_profiles() or super().has_partition_key(
            partition_key, *args, **more
        )


PROFILES = Profiles(name="profile")


def profile_name(run_config: Mapping) -> str:
    """The name of the profile that a run config asks for. Raises ValueError as `load_params`."""
    config = run_config.get("resources", {}).get("project", {}).get("config", {})
    profile = config.get("profile", DEFAULT)
    if isinstance(profile, Mapping):  # {env: NAME}, which Dagster's configs allow
        profile = os.environ[profile["env"]]
    return load_params(profile).profile


class Project(dg.ConfigurableResource):
    """A checkout and a profile; the default is the micro profile of this checkout."""

    profile: str = DEFAULT  # name in profiles/, or the path of a YAML file
    # "" in the next three is WORDS_TO_MASKS_ROOT, _TRACKING_URI, _ARTIFACTS, or without it:
    root: str = ""  # folder or address (s3://bucket/prefix) that holds data/; "" is this checkout
    tracking_uri: str = ""  # of MLflow, without a login; "" is sqlite:///<root>/mlflow.db
    artifacts: str = ""  # folder or URL; "" is <root>/mlartifacts, or what the server decides
    _partition: str = PrivateAttr(default="")  # of the run, when it was started on one

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuses an address that holds a login, and masks the login in the run config that Dagster
        has already stored."""
        self._partition = context.run.tags.get(PARTITION, "") if context.run else ""
        try:
            _ = self.registry
        except ValueError:
            run = (
                context.instance
                and context.run_id
                and context.instance.get_run_by_id(context.run_id)
            )
            if run and (masked := masked_values(run.run_config)) != run.run_config:
                context.instance.run_storage.delete_run(run.run_id)
                context.instance.run_storage.add_run(run._replace(run_config=masked))
            raise

    @property
    def home(self) -> Path:
        return home_of(self.root)

    @property
    def params(self) -> Params:
        """Raises ValueError naming the file and the field for a setting that cannot be used, or
        when the run's partition is another profile than its config.

        The registry's address is checked here too: every asset asks for the settings first, so that
        a wrong address is refused before the first picture is drawn, not after the last training.
        """
        _ = self.registry
        params = load_params(self.profile)
        if self._partition in ("", params.profile):
            return params
        if self.profile == DEFAULT:  # the config names none
            return load_params(self._partition)
        raise ValueError(
            f"the run's partition is {self._partition!r}, but its config says profile "
            f"{self.profile!r}; expected the same, or no profile in the config"
        )

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.home, self.params.profile)

    @property
    def registry(self) -> tuple[str, str | None]:
        """Tracking URI and artifact location, as `tracking.resolve` makes them."""
        return resolve(self.tracking_uri, self.artifacts, self.home)
