"""Study 7's raw tables, made in parts and kept. The figures are in `absent_words`."""

import pandas as pd

from ml.foundation.tokenizer import MAX_LENGTH
from ml.grounding.presence import MIN_PRESENCE, TIMESTEPS
from ml.studies.absent_methods import PART, AbsentAsker
from ml.studies.absent_questions import ABSENT
from ml.studies.asking import SPECS, contrast_threshold, modules_recipe
from ml.studies.parallel import run_tasks
from ml.studies.records import GENERATED, NOISED
from ml.studies.study_run import StudyRun
from ml.studies.trainings import have_modules, train_all

MASK_SHARE = 0.005
"""Of the picture: a smaller mask counts as none. The least area of a training mask."""

COLUMNS = (
    "kind",
    "method",
    "split",
    "seed",
    "source",
    "absent",
    "key",
    "entity",
    "there",
    "area",
    "iou",
    "value",
)


def make_tables(run: StudyRun) -> None:
    """Trains what is not trained and asks every picture, in parts, `run.workers` at once."""
    train_all(run, list(SPECS.values()))
    have_modules(run, list(SPECS.values()))
    threshold = contrast_threshold(run)
    run_tasks(
        "absent words",
        [(_part, run, source, number, threshold) for source, number in _parts(run)],
        run.workers,
    )


def tables(run: StudyRun) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What `make_tables` left: rows of masks and rows of scores."""
    rows = pd.concat([_raw(run, *part) for part in _parts(run)], ignore_index=True)
    return tuple(rows[rows.kind == kind].reset_index(drop=True) for kind in ("mask", "score"))


def _parts(run: StudyRun) -> list[tuple[str, int]]:
    count = -(-run.size.absent_pictures // PART)
    return [(source, number) for source in (GENERATED, NOISED) for number in range(count)]


def _recipe(run: StudyRun, source: str, number: int) -> str:
    return run.recipe(
        study="absent_words",
        source=source,
        number=number,
        counts=run.counts("absent_pictures"),
        modules=modules_recipe(run),
        presence=[MIN_PRESENCE, *TIMESTEPS],
        share=MASK_SHARE,
        absent=ABSENT,
        longest=MAX_LENGTH,
    )


def _raw(run: StudyRun, source: str, number: int, threshold: float | None = None) -> pd.DataFrame:
    def ask() -> pd.DataFrame:
        if threshold is None:
            raise ValueError("the study of absent words was not made: run `python -m ml.studies`")
        return pd.DataFrame(AbsentAsker(run, threshold).rows(source, number), columns=COLUMNS)

    return run.table(f"absent_words-{source}-{number:02d}", _recipe(run, source, number), ask)


def _part(run: StudyRun, source: str, number: int, threshold: float) -> str:
    _raw(run, source, number, threshold)
    return f"{source} {number}"
