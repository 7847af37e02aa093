"""The one resource: which checkout, which profile, which model registry.

It holds settings and paths only: nothing is opened, and no heavy package imported, when Dagster
loads the definitions. A profile is also a partition of every asset and check, so that each profile
has a history of its own.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from pydantic import Field, PrivateAttr

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


def asked_profile(run_config: Mapping) -> str:
    """The profile, a name or a path, that a run config asks for; "" when it names none.

    Raises ValueError for one that stands in a variable that is not set here.
    """
    config = run_config.get("resources", {}).get("project", {}).get("config", {})
    profile = config.get("profile", "")
    if not isinstance(profile, Mapping):
        return profile
    variable = profile["env"]  # {env: NAME}, which Dagster's configs allow
    if variable not in os.environ:
        raise ValueError(
            f"the run config takes its profile from ${variable}, which is not set here: set it, "
            "or name the profile"
        )
    return os.environ[variable]


def profile_name(run_config: Mapping) -> str:
    """The name of the profile that a run config asks for. Raises ValueError as `asked_profile` and
    `load_params`."""
    return load_params(asked_profile(run_config) or DEFAULT).profile


class Project(dg.ConfigurableResource):
    """Which profile is made, and where its data and its models lie.

    Every field may stay empty: then it is the profile of the chosen partition, in this checkout.
    """

    profile: str = Field(
        "",
        description="The settings: a file of profiles/ without its .yaml "
        f"({', '.join(known_profiles())}), or the path of a YAML file. Empty: the partition that "
        f"was chosen, and without one {DEFAULT}.",
    )
    root: str = Field(
        "",
        description="Folder or address (s3://bucket/prefix) that holds data/<profile>/. Empty: "
        "$WORDS_TO_MASKS_ROOT, and without it this checkout.",
    )
    tracking_uri: str = Field(
        "",
        description="The MLflow registry, without a login: sqlite:///file.db below the root, "
        "http://server or postgresql://server/name. Empty: $WORDS_TO_MASKS_TRACKING_URI, and "
        "without it sqlite:///mlflow.db.",
    )
    artifacts: str = Field(
        "",
        description="Folder or URL in which the registry keeps models and pictures; a server "
        "decides that itself. Empty: $WORDS_TO_MASKS_ARTIFACTS, and without it mlartifacts below "
        "the root.",
    )
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
        params = load_params(self.profile or self._partition or DEFAULT)
        if self._partition in ("", params.profile):
            return params
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
