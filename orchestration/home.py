"""The place of a run, as its run config names it; known without Dagster."""

from pathlib import Path

from ml.settings.profile import ROOT
from ml.store.places import is_remote, place_of


def home_of(root: str) -> Path:
    """The place that a `root` in run config means: "" is this checkout. Raises ValueError as
    `ml.store.places.place_of`."""
    place = place_of(root) if root else ROOT
    return place if is_remote(place) else place.resolve()
