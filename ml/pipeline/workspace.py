"""Where the stages of one profile keep their folders, and the notes about each."""

from dataclasses import dataclass, replace
from pathlib import Path

from ml.settings.params import Params
from ml.settings.profile import ROOT
from ml.settings.sections import DetectorParams, DiffusionParams
from ml.store.files import (
    Damaged,
    Fields,
    read_json,
    sha256_file,
    sha256_folder,
    sha256_json,
)
from ml.store.successor import STATE, Successor

VERDICT = {"digest": str, "passed": bool, "failures": list}
"""What the checks' `quality.json` holds at least."""
SEAL = "sha256"
"""Of a verdict: the digest of its other fields."""


TIMING = {"seconds": (int, float), "peak_rss_mb": (int, float)}
"""What `timing.json` holds."""


@dataclass(frozen=True)
class Workspace:
    """Where the stages of one profile keep their folders: `<root>/data/<profile>/<stage>`.

    making: the stage that is being made; its `folder` is the one that will take the other's place.
    """

    root: Path
    profile: str
    making: str = ""

    @property
    def data(self) -> Path:
        return Path(self.root) / "data" / self.profile

    def folder(self, stage: str) -> Path:
        return Successor(self.data, stage).new if stage == self.making else self.data / stage

    def state(self, stage: str) -> Path:
        """The folder of the notes about a stage's folder: `timing.json` (how long it took),
        `made.json` (that it was made here), `quality.json` (the last checks).

        They are kept apart from the data, so that DVC's hash of the folder depends on the data
        alone, and are replaced together with it.
        """
        return self.data / STATE / stage

    def model(self, name: str) -> str:
        """A model folder or file (below the root, else the checkout) as an absolute path.

        A name that is neither is a hub id or a backend's own name, returned as it is.
        """
        for base in (Path(self.root), ROOT):
            if (base / name).exists():
                return str(base / name)
        return name

    def located(self, diffusion: DiffusionParams) -> DiffusionParams:
        """The settings with `model` as `Workspace.model` finds it."""
        return replace(diffusion, model=self.model(diffusion.model))

    def detector(self, detector: DetectorParams) -> str:
        """`model` of `detector.model`, except that a name which the backend itself knows is never
        taken for a folder or file below the root."""
        return detector.model if _own_name(detector) else self.model(detector.model)

    def digest(self, params: Params, place: str) -> str | None:
        """What a recipe holds for the setting `place` ("diffusion.model"): the sha256 of a folder
        or file; a hub id or a backend's own name as it is; None when the setting is null."""
        value = params.section(place)
        if value is None or (place == "detector.model" and _own_name(params.detector)):
            return value
        model = Path(self.model(value))
        return (
            sha256_folder(model)
            if model.is_dir()
            else sha256_file(model)
            if model.is_file()
            else value
        )


def sealed(verdict: dict) -> dict:
    """A verdict with its seal, as `quality.json` holds it."""
    return verdict | {SEAL: sha256_json({k: v for k, v in verdict.items() if k != SEAL})}


def read_verdict(path: Path, expected: Fields = VERDICT) -> dict | None:
    """The verdict in a `quality.json`, None without one.

    Raises Damaged for one that can't be read or does not fit its seal: it may have been a failure.
    One of an earlier version has no seal.
    """
    verdict = read_json(path, expected)
    if verdict is not None and SEAL in verdict and sealed(verdict) != verdict:
        raise Damaged(f"{path} does not fit its own sha256: it was edited or damaged")
    return verdict


def _own_name(detector: DetectorParams) -> bool:
    """Whether `detector.model` is a name that the backend itself knows."""
    return {
        "torchvision": detector.model == "coco",
        "detectron2": detector.model.endswith((".yaml", ".py")),
    }.get(detector.backend, False)
