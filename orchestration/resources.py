"""The one resource: which checkout, which profile, which model registry.

Only settings and paths belong here; nothing is opened or imported at start.
"""

from pathlib import Path

import dagster as dg

from ml.params import ROOT, Params, load_params
from ml.stages import Workspace


def home_of(root: str) -> Path:
    """The folder that a `root` in run config means: "" is this checkout."""
    return Path(root).resolve() if root else ROOT


class Project(dg.ConfigurableResource):
    """A checkout and a profile; the default is the micro profile of this checkout."""

    profile: str = "micro"  # name in profiles/, or the path of a YAML file
    root: str = ""  # folder that holds data/; "" is this checkout
    tracking_uri: str = ""  # of MLflow; "" is sqlite:///<root>/mlflow.db
    artifacts: str = ""  # MLflow's artifact folder; "" is <root>/mlartifacts

    @property
    def home(self) -> Path:
        return home_of(self.root)

    @property
    def params(self) -> Params:
        """Raises ValueError naming the file and the field for a setting that cannot be used."""
        return load_params(self.profile)

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
