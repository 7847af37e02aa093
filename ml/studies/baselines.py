"""Raw rows of the baselines that need no training: DAAM, and leave-one-out contrast alone."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ml.baselines.daam import best_threshold, candidate_thresholds, strongest, threshold_masks
from ml.studies.records import Record
from ml.studies.scores import raw_rows
from ml.studies.specs import Spec
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import drawn_pictures, judged_pictures, training_set
from ml.words.vocabulary import Vocabulary, load_vocabulary

FIXED_THRESHOLD = 0.4


def make_baselines(run: StudyRun, split: str) -> pd.DataFrame:
    """Raw rows of DAAM and of the contrast alone, also on drawn scenes for the contrast."""
    recipe = run.recipe(
        counts=run.counts(),
        split=split,
        seed=run.params.seed,
        candidates=run.params.benchmark.daam_thresholds,
    )
    return run.table(f"baselines-{split}", recipe, lambda: _baselines(run, split))


def contrast_maps(records: Sequence[Record]) -> list[np.ndarray]:
    """Leave-one-out contrast of each word, mean over timesteps: float32 (n,h,w) each."""
    return [record.evidence.mean(1) for record in records]


def _baselines(run: StudyRun, split: str) -> pd.DataFrame:
    vocabulary = load_vocabulary(split)
    training = training_set(run, Spec(split))
    candidates = candidate_thresholds(run.params.benchmark.daam_thresholds)
    daam, _ = best_threshold(training, [r.daam for r in training], candidates)
    contrast, _ = best_threshold(training, contrast_maps(training), candidates, strongest)
    judged = [r for r in judged_pictures(run) if r.whole]
    scenes = [r.at(place) for r in drawn_pictures(run) for place in (0, 1)]
    rows = []
    for record in judged:
        for method, threshold in (("daam", daam), ("daam-0.4", FIXED_THRESHOLD)):
            rows += _rows(
                record,
                threshold_masks(record.daam, record.size, threshold),
                vocabulary,
                method,
                threshold,
            )
    for record, maps in zip(judged + scenes, contrast_maps(judged + scenes), strict=True):
        rows += _rows(
            record,
            threshold_masks(maps, record.size, contrast, strongest),
            vocabulary,
            "contrast",
            contrast,
        )
    return pd.DataFrame(rows)


def _rows(
    record: Record, masks: np.ndarray, vocabulary: Vocabulary, method: str, threshold: float
) -> list[dict]:
    return raw_rows(
        record,
        masks,
        vocabulary,
        {"method": method, "seed": 0, "split": vocabulary.name, "threshold": threshold},
    )
