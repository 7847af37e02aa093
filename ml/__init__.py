"""Words to masks: pictures with masks for words out of a text-to-image model, and what is built on
them.

    from ml import GroundedDiffusionPipeline

    pipe = GroundedDiffusionPipeline.from_pretrained("data/micro/grounding_model")
    out = pipe("a photograph of a dog and a cat", entities=["dog", "cat"], seed=0)

Names are imported when they are first asked for: `import ml` alone loads neither torch nor
diffusers.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml.grounding.module import GroundingModule
    from ml.grounding.output import GroundedOutput
    from ml.grounding.pipeline import GroundedDiffusionPipeline
    from ml.segmenters import load_segmenter
    from ml.words.vocabulary import load_vocabulary

if "OMP_WAIT_POLICY" not in os.environ:  # your own value is kept
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
"""A thread of torch that waits for the others looks a thousand times (libgomp; other OpenMPs not at
all), then sleeps. By default it looks 300,000 times, and holds a core that those it waits for may
need: beside other work a training then takes several times as long. One that sleeps at once is
twice as slow in small trainings on an idle machine (docs/scale.md#a-busy-machine). OpenMP
reads this once, when torch is imported, so it stands in the module that every process of ours
imports first."""

__all__ = [
    "GroundedDiffusionPipeline",
    "GroundedOutput",
    "GroundingModule",
    "load_segmenter",
    "load_vocabulary",
]

_HOMES = {
    "GroundedDiffusionPipeline": ".grounding.pipeline",
    "GroundedOutput": ".grounding.output",
    "GroundingModule": ".grounding.module",
    "load_segmenter": ".segmenters",
    "load_vocabulary": ".words.vocabulary",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
