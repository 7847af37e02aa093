"""The pictures that modules of a specification learn from and are scored on."""

from dataclasses import replace

import numpy as np

from ml.grounding.samples import refuse_unseen
from ml.pipeline.stages.triplets import subset_of
from ml.studies import prompt_sets, sizes
from ml.studies.picture_sets import drawn, generated
from ml.studies.records import INVERTED, NOISED, Record
from ml.studies.specs import Spec, vocabulary_of
from ml.studies.study_run import StudyRun


def training_set(run: StudyRun, spec: Spec) -> list[Record]:
    """The pictures that it may learn from, each with an accepted mask at least; seen classes only.

    Raises ValueError when a mask of a class that is not seen would be among them.
    """
    seen = set(vocabulary_of(spec).seen)
    if spec.labels == "detector":
        own = few_pictures(run, spec.seen) if spec.few else training_pictures(run)
        own = [r.at(spec.place) for r in own]
    else:
        place = (NOISED, INVERTED).index(spec.labels)
        own = [r.by_truth().at(place) for r in drawn_training_pictures(run)]
    own = [r for r in own if set(r.entities) <= seen and (any(r.rles) or spec.empty_masks)]
    if spec.pictures is not None:
        own = [own[i] for i in np.random.default_rng(0).permutation(len(own))[: spec.pictures]]
    refuse_unseen(own, seen)
    return [
        replace(r, subset=subset_of(r.key, "train", run.params.triplets.validation_share))
        for r in own
    ]


def training_pictures(run: StudyRun) -> list[Record]:
    return generated(
        run, "train", prompt_sets.training_prompts(run.size, run.params.seed), sizes.FRACTIONS
    )


def few_pictures(run: StudyRun, seen: int) -> list[Record]:
    return generated(
        run, f"few{seen}", prompt_sets.few_class_prompts(run.size, seen, run.params.seed)
    )


def judged_pictures(run: StudyRun) -> list[Record]:
    return generated(
        run, "judged", prompt_sets.judged_prompts(run.size, run.params.seed), sizes.FRACTIONS
    )


def drawn_pictures(run: StudyRun) -> list[Record]:
    return drawn(run, "real", prompt_sets.drawn_classes(run.size, run.params.seed), 0)


def drawn_training_pictures(run: StudyRun) -> list[Record]:
    return drawn(
        run, "real_train", prompt_sets.drawn_training_classes(run.size, run.params.seed), 100_000
    )
