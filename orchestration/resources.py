"""The one resource: which checkout, which profile, which model registry.

Only settings and paths belong here; nothing is opened or imported at start.
"""

from pathlib import Path

import dagster as dg

from ml.params import ROOT, Params, load_params
from ml.stages import Workspace
from orchestration.tracking import masked_values, resolve


def home_of(root: str) -> Path:
    """The folder that a `root` in run config means: "" is this checkout."""
    return Path(root).resolve() if root else ROOT


class Project(dg.ConfigurableResource):
    """A checkout and a profile; the default is the micro profile of this checkout."""

    profile: str = "micro"  # name in profiles/, or the path of a YAML file
    root: str = ""  # folder that holds data/; "" is this checkout
    tracking_uri: str = ""  # of MLflow, without a login; "" is sqlite:///<root>/mlflow.db
    artifacts: str = ""  # folder or URL; "" is <root>/mlartifacts, or what the server decides

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuses a login in an address, and masks it in the run config that Dagster kept of it."""
        try:
            _ = self.registry
        except ValueError:
            run = context.instance and context.run_id and context.instance.get_run_by_id(
                context.run_id)
            if run and (masked := masked_values(run.run_config)) != run.run_config:
                context.instance.run_storage.delete_run(run.run_id)
                context.instance.run_storage.add_run(run._replace(run_config=masked))
            raise

    @property
    def home(self) -> Path:
        return home_of(self.root)

    @property
    def params(self) -> Params:
        """Raises ValueError naming the file and the field for a setting that cannot be used.

        A registry that can't be opened is one: every asset asks here first, so that it is refused
        before the first picture is drawn, not after the last training.
        """
        _ = self.registry
        return load_params(self.profile)

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.home, self.params.profile)

    @property
    def registry(self) -> tuple[str, str | None]:
        """Tracking URI and artifact location, as `tracking.resolve` makes them."""
        return resolve(self.tracking_uri, self.artifacts, self.home)
