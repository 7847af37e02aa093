"""The one resource: which checkout, which profile, which model registry.

Only settings and paths belong here; nothing is opened or imported at start. A profile is also a
partition of every asset and check: their history is kept by profile.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import dagster as dg
from pydantic import PrivateAttr

from ml.params import ROOT, Params, load_params
from ml.stages import Workspace

DEFAULT = "micro"
PARTITION = "dagster/partition"  # the run's tag that Dagster reads


def home_of(root: str) -> Path:
    """The folder that a `root` in run config means: "" is this checkout."""
    return Path(root).resolve() if root else ROOT


def known_profiles() -> list[str]:
    """The default profile and those in profiles/."""
    files = (file.name for file in (ROOT / "profiles").glob("*.yaml"))
    names = {name.removesuffix(".yaml") for name in files if not name.endswith(".run.yaml")}
    return sorted({DEFAULT, *(name for name in names if not name.startswith("paper"))})


class Profiles(dg.DynamicPartitionsDefinition):
    """Those of profiles/ are there in a new history too, where no run has added any."""

    def has_partition_key(self, partition_key: str, *args, **more) -> bool:
        return partition_key in known_profiles() or super().has_partition_key(
            partition_key, *args, **more)


PROFILES = Profiles(name="profile")


def profile_name(run_config: Mapping) -> str:
    """The name of the profile that a run config asks for. Raises ValueError as `load_params`."""
    said = run_config.get("resources", {}).get("project", {}).get("config", {})
    profile = said.get("profile", DEFAULT)
    if isinstance(profile, Mapping):  # {env: NAME}, as Dagster's configs may say
        profile = os.environ[profile["env"]]
    return load_params(profile).profile


class Project(dg.ConfigurableResource):
    """A checkout and a profile; the default is the micro profile of this checkout."""

    profile: str = DEFAULT  # name in profiles/, or the path of a YAML file
    root: str = ""  # folder that holds data/; "" is this checkout
    tracking_uri: str = ""  # of MLflow; "" is sqlite:///<root>/mlflow.db
    artifacts: str = ""  # MLflow's artifact folder; "" is <root>/mlartifacts
    _partition: str = PrivateAttr(default="")  # of the run, when it was started on one

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        self._partition = context.run.tags.get(PARTITION, "") if context.run else ""

    @property
    def home(self) -> Path:
        return home_of(self.root)

    @property
    def params(self) -> Params:
        """Raises ValueError naming the file and the field for a setting that cannot be used, or
        when the run's partition is another profile than its config."""
        params = load_params(self.profile)
        if self._partition in ("", params.profile):
            return params
        if self.profile == DEFAULT:  # the config left it open
            return load_params(self._partition)
        raise ValueError(f"the run's partition is {self._partition!r}, but its config says profile "
                         f"{self.profile!r}; expected the same, or no profile in the config")

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.home, self.params.profile)

    @property
    def registry(self) -> tuple[str, str]:
        """Tracking URI and artifact folder; a relative sqlite file or folder is below the root."""
        uri = self.tracking_uri or "sqlite:///mlflow.db"
        if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
            uri = f"sqlite:///{self.home / uri.removeprefix('sqlite:///')}"
        return uri, str(self.home / (self.artifacts or "mlartifacts"))
