"""Where the stages of one profile keep their folders, and the notes about each."""

from dataclasses import dataclass, replace
from pathlib import Path

from ml.settings.params import Params
from ml.settings.profile import ROOT
from ml.settings.sections import DetectorParams, DiffusionParams
from ml.store.files import read_note, sha256_file
from ml.store.folder_digest import sha256_folder
from ml.store.places import is_remote, place_of
from ml.store.stage_places import folder_of, state_of
from ml.store.successor import Successor

VERDICT = {"digest": str, "passed": bool, "failures": list}
"""What the checks' `quality.json` holds at least."""


TIMING = {"seconds": (int, float), "peak_rss_mb": (int, float)}
"""What `timing.json` holds."""


@dataclass(frozen=True)
class Workspace:
    """Where the stages of one profile keep their folders: `<root>/data/<profile>/<stage>`.

    root: a local folder or a place on an object store (`ml.store.places`). making: the stage that
    is being made; its `folder` is the one that will take the other's place. new: that folder, where
    the stage's name alone does not say it.
    """

    root: Path
    profile: str
    making: str = ""
    new: Path | None = None

    @property
    def data(self) -> Path:
        return place_of(self.root) / "data" / self.profile

    def folder(self, stage: str) -> Path:
        if stage == self.making:
            return self.new or Successor(self.data, stage).new
        return folder_of(self.data, stage)

    def state(self, stage: str) -> Path:
        """The folder of the notes about a stage's folder: `timing.json` (how long it took),
        `made.json` (that it was made here), `quality.json` (the last checks).

        They are kept apart from the data, so that DVC's hash of the folder depends on the data
        alone, and are replaced together with it.
        """
        return state_of(self.data, stage)

    def model(self, name: str) -> str:
        """A model folder or file (below the root, else the checkout) as an absolute path.

        A name that is neither is a hub id or a backend's own name, returned as it is. Models are
        files of this machine: below a root on an object store none is looked for.
        """
        own = place_of(self.root)
        for base in (ROOT,) if is_remote(own) else (own, ROOT):
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
        or file; a hub id or a backend's own name as it is; None when the setting is null.

        Raises ValueError for a folder that is not what the card beside it says (`_check_card`).
        """
        value = params.section(place)
        if value is None or (place == "detector.model" and _own_name(params.detector)):
            return value
        model = Path(self.model(value))
        if model.is_dir():
            _check_card(model, digest := sha256_folder(model))
            return digest
        return sha256_file(model) if model.is_file() else value


def _check_card(model: Path, digest: str) -> None:
    """Raises ValueError when a card (`ml.foundation.card`) beside a model's folder states another
    digest: a changed bit of its weights would spoil all that is made with it, and say nothing."""
    card = read_note(model.parent / "card.json", {"sha256": dict}) or {"sha256": {}}
    stated = str(card["sha256"].get(model.name, digest))
    if stated != digest:
        raise ValueError(
            f"{model} is not the model of {model.parent / 'card.json'} (sha256 {digest[:12]}, "
            f"expected {stated[:12]}): it is damaged or was changed. Bring it again (of the "
            "checkout's own: git checkout data/foundation); if you trained it, state its digest "
            "with python -m ml.foundation.measure"
        )


def _own_name(detector: DetectorParams) -> bool:
    """Whether `detector.model` is a name that the backend itself knows."""
    return {
        "torchvision": detector.model == "coco",
        "detectron2": detector.model.endswith((".yaml", ".py")),
    }.get(detector.backend, False)
