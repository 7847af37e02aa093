"""The place of a run, as its run config names it; known without Dagster."""

import os
from pathlib import Path

from ml.settings.profile import ROOT
from ml.store.places import is_remote, place_of


def surroundings(name: str) -> str:
    """WORDS_TO_MASKS_<name> of the environment, which an image or a chart sets; "" without it.

    Asked for where a value is used: a resource's own default is lost as soon as the run config has
    any other field of the resource.
    """
    return os.environ.get(f"WORDS_TO_MASKS_{name}", "")


def home_of(root: str) -> Path:
    """The place that a `root` in run config means: "" is WORDS_TO_MASKS_ROOT, or else this
    checkout. Raises ValueError as `ml.store.places.place_of`."""
    root = root or surroundings("ROOT")
    place = place_of(root) if root else ROOT
    return place if is_remote(place) else place.resolve()
