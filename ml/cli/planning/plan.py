"""The plan: everything that the page shows."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ml.cli.planning.counts import Counts
from ml.cli.planning.known_models import Drawing
from ml.cli.planning.models import Found
from ml.cli.planning.need import Need
from ml.cli.planning.workers import Sharing
from ml.settings.params import Params

if TYPE_CHECKING:
    from ml.cli.planning.probe import Probe  # which imports torch


@dataclass
class Plan:
    """Everything the page shows, and why the run cannot be started."""

    params: Params
    counts: Counts
    models: list[Found]
    drawing: Drawing | None
    module: tuple[int, int] = (0, 0)  # of the grounding module, see `grounding_size`
    disk: list[Need] = field(default_factory=list)
    there: dict[str, int] = field(default_factory=dict)  # stage -> bytes on disk already
    gpu: list[Need] = field(default_factory=list)
    ram: list[Need] = field(default_factory=list)
    sharing: Sharing = field(default_factory=Sharing)
    seconds: dict[str, float | None] = field(default_factory=dict)
    probe: "Probe | None" = None
    unusable: list[str] = field(default_factory=list)  # settings that a stage would refuse, too
    refusals: list[str] = field(default_factory=list)  # what this machine has too little of
    notes: list[str] = field(default_factory=list)
