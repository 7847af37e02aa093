"""The models of one profile, opened when they are first asked for and shared by all who ask.

Not here: anything of a person who asks. One question at a time has the models (`Models.lock`),
because attention maps are recorded on the U-Net itself.
"""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel

from ml.compute.devices import find_device
from ml.errors import ManifestError
from ml.grounding.engine import GroundingEngine
from ml.grounding.opening import Opened, open_model
from ml.pipeline.finished import manifest_of
from ml.pipeline.stages.promotion import WHO, champion_folder
from ml.pipeline.workspace import Workspace
from ml.segmenters import load_segmenter
from ml.settings.params import Params
from ml.store.manifest import read_manifest
from ml.store.seals import read_sealed
from ml.words.vocabulary import Vocabulary, load_vocabulary

DAAM_THRESHOLD = 0.4
"""Of scaled attention maps, until the profile has scored its own (`grounding_scores`)."""


@dataclass(frozen=True)
class Segmenter:
    """A trained segmenter on its device. title: what it is, for the page."""

    model: PreTrainedModel
    title: str


@dataclass
class Models:
    """What a profile's finished stages hold, as of now: a folder that was made again is opened
    again.

    segmenter_folder: of the segmenter shown beside the masks, such as a download from the model
    registry; None takes the profile's own.
    """

    params: Params
    workspace: Workspace
    segmenter_folder: Path | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    _opened: tuple[str, Opened, GroundingEngine] | None = None
    _segmenter: tuple[str, PreTrainedModel] | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        return load_vocabulary(self.params.vocabulary)

    def grounding(self) -> tuple[Opened, GroundingEngine]:
        """The diffusion model and its grounding module. Raises ManifestError, or ValueError for a
        folder that cannot be opened."""
        folder = self.workspace.folder("grounding_model")
        digest = _finished(folder, self.params).digest
        if self._opened is None or self._opened[0] != digest:
            found = open_model(folder, self.params.diffusion.device)
            engine = GroundingEngine(found.pipe, found.module, found.batch_size, found.queries)
            self._opened = digest, found, engine
        return self._opened[1:]

    def segmenter(self) -> Segmenter | None:
        """None before the stage `segmenter` is finished, unless a folder was named."""
        if self.segmenter_folder is not None:
            digest, folder = "", self.segmenter_folder
        else:
            manifest = manifest_of(self.workspace, "segmenter")
            if manifest is None:
                return None
            digest, folder = manifest.digest, self.workspace.folder("segmenter")
        if self._segmenter is None or self._segmenter[0] != digest:
            model = load_segmenter(folder).to(find_device(self.params.diffusion.device))
            self._segmenter = digest, model
        # a promotion or a rollback changes the title alone
        return Segmenter(self._segmenter[1], self._title(digest))

    def _title(self, digest: str) -> str:
        if not digest:
            return f"the segmenter of {self.segmenter_folder}"
        # read as it is: `champion_record` also repairs, which a promotion alone may do
        record = champion_folder(self.workspace, "segmenter") / "record.json"
        champion = read_sealed(record, WHO)
        is_champion = champion is not None and champion["digest"] == digest
        return "the champion segmenter" if is_champion else "this run's segmenter (no champion)"

    def daam_threshold(self) -> float:
        """The one that the profile's `grounding_scores` found best on seen training pictures."""
        scores = manifest_of(self.workspace, "grounding_scores")
        facts = {} if scores is None else scores.facts
        return float(facts.get("daam_threshold", DAAM_THRESHOLD))


def _finished(folder: Path, params: Params):
    try:
        return read_manifest(folder, verify=False)
    except ManifestError as error:
        raise ManifestError(
            f"the profile {params.profile!r} has no finished {folder.name}: make it with "
            f"`make run PROFILE={params.profile}`, then ask again ({error})"
        ) from error
