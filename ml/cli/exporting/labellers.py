"""Models of a profile that give photographs label maps. Each is loaded when it is first needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.objects import local_copy
from ml.words.vocabulary import BACKGROUND, Vocabulary

if TYPE_CHECKING:
    from ml.words.text_limit import TextLimit

Label = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
"""Pictures uint8 (H,W,3) -> label maps uint8 (H,W): 0 background, i+1 class i, 255 uncertain."""


def by_grounding(
    params: Params, workspace: Workspace, vocabulary: Vocabulary, min_presence: float
) -> Label:
    """The grounding module, asked for the vocabulary's words that are present, as many of the
    surest as fit in a prompt.

    It works in the model's square; the labels come back at the photographs' sizes, no finer.
    """
    from ml.diffusion.tokens import text_limit
    from ml.grounding.given import enlarged, squared
    from ml.grounding.pipeline import GroundedDiffusionPipeline
    from ml.grounding.presence import presence
    from ml.pipeline.stages.synthetic_dataset import label_map

    with local_copy(workspace.folder("grounding_model")) as folder:
        pipe = GroundedDiffusionPipeline.from_pretrained(folder, params.diffusion.device)
    labels = {vocabulary.words[name][0]: vocabulary.label(name) for name in vocabulary.classes}
    side, limit = pipe.config.picture_size, text_limit(pipe.pipe)
    band, competition = params.synthetic.ignore_band, pipe.config.competition

    def small_maps(small: np.ndarray) -> list[np.ndarray]:
        every = [list(labels)] * len(small)
        scores = presence(pipe.pipe, small, every, batches=pipe.engine.batches)
        asked = [surest(list(labels), own, min_presence, limit) for own in scores]
        places = [place for place, words in enumerate(asked) if words]
        maps = [np.zeros((side, side), np.uint8) for _ in asked]
        if places:
            found = pipe.engine.ground(small[places], [asked[place] for place in places])
            for place, own in zip(places, found.probabilities, strict=True):
                numbers = [labels[word] for word in asked[place]]
                maps[place] = label_map(own, numbers, band, competition)
        return maps

    def label(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        maps = small_maps(np.stack([squared(picture, side) for picture in pictures]))
        return [
            enlarged(own[None], picture.shape[:2])[0]
            for own, picture in zip(maps, pictures, strict=True)
        ]

    return label


def surest(words: Sequence[str], scores: np.ndarray, least: float, limit: "TextLimit") -> list[str]:
    """The words with a score of `least` or more, in their order; where a prompt of them is too
    long for the text encoder, without those of the lowest scores."""
    from ml.grounding.prompting import compose_prompt

    ranked = [int(place) for place in np.argsort(-scores, kind="stable") if scores[place] >= least]
    while ranked and limit.fault(compose_prompt([words[place] for place in sorted(ranked)])):
        ranked.pop()
    return [words[place] for place in sorted(ranked)]


def by_segmenter(
    params: Params, workspace: Workspace, vocabulary: Vocabulary, min_presence: float
) -> Label:
    """The segmenter, whose labels have to be the vocabulary's. It leaves no pixel uncertain."""
    from ml.compute.devices import find_device
    from ml.segmenters import load_segmenter
    from ml.segmenters.prediction import predict

    with local_copy(workspace.folder("segmenter")) as folder:
        model = load_segmenter(folder).to(find_device(params.diffusion.device))
    names = [model.config.id2label[i] for i in range(len(vocabulary.classes) + 1)]
    if names != [BACKGROUND, *vocabulary.classes]:
        raise ValueError(
            f"the segmenter's labels are {', '.join(names[:5])}, ...; expected the vocabulary's "
            f"({', '.join(vocabulary.classes[:4])}, ...): run `python -m ml segmenter` again"
        )

    def label(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [predict(model, np.array(picture)[None])[0] for picture in pictures]

    return label


@dataclass(frozen=True)
class Labeller:
    stage: str  # whose folder has the model
    load: Callable[[Params, Workspace, Vocabulary, float], Label]


LABELLERS = {
    "grounding": Labeller("grounding_model", by_grounding),
    "segmenter": Labeller("segmenter", by_segmenter),
}
"""--with -> who labels."""
