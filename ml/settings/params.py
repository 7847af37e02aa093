"""All settings of a profile as one frozen dataclass of its sections."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Annotated, ClassVar

from ml.settings.ranges import Range
from ml.settings.sections import (
    BenchmarkParams,
    CheckParams,
    DetectorParams,
    DiffusionParams,
    ExecutorParams,
    GroundingParams,
    PromotionParams,
    PromptParams,
    SegmenterParams,
    ShardParams,
    SyntheticParams,
    Text,
    TripletParams,
)

NEUTRAL: dict[str, object] = {
    "diffusion.offload": "none",
    "diffusion.quantise": None,
    "diffusion.t5_tokens": None,
    "segmenter.warm_up": 0,
    "segmenter.class_weight": 1.0,
    "triplets.labels": None,
    "triplets.labels_format": "auto",
    "promotion.min_audited_precision": None,
}
"""Settings that earlier versions had not, and the value at which all is as it was without them. At
it they are left out of manifests, so that what was finished before stays valid."""


def neutral(section: str) -> dict[str, object]:
    """The fields of NEUTRAL of a section, which a manifest may leave out."""
    start = f"{section}."
    return {name[len(start) :]: own for name, own in NEUTRAL.items() if name.startswith(start)}


@dataclass(frozen=True)
class Params:
    profile: Text  # also the folder under data/; `ml.settings.files` says which names do
    seed: Annotated[int, Range(0, 2**32 - 1)]
    vocabulary: Text  # name in ml/words/vocabularies or path of a YAML file
    diffusion: DiffusionParams
    detector: DetectorParams
    prompts: PromptParams
    shards: ShardParams
    executor: ExecutorParams
    checks: CheckParams
    triplets: TripletParams
    grounding: GroundingParams
    synthetic: SyntheticParams
    segmenter: SegmenterParams
    benchmark: BenchmarkParams
    promotion: PromotionParams
    file: ClassVar[str | None] = None
    """No setting: of an instance that `load_params` read, its YAML file, below the checkout or
    absolute. `dataclasses.replace` drops it: a changed copy belongs to no file."""

    def section(self, name: str) -> object:
        """The value of a field ("benchmark") or of one of its fields ("benchmark.source") as plain
        data (dict, str or int), as it goes into a manifest."""
        value = functools.reduce(getattr, name.split("."), self)
        if not dataclasses.is_dataclass(value) or isinstance(value, type):
            return value
        return {
            field: own
            for field, own in dataclasses.asdict(value).items()
            if NEUTRAL.get(f"{name}.{field}", ...) != own
        }
