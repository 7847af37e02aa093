"""Raw rows of a specification: its modules trained, and scored on all pictures.

The same steps for every row of every study: pictures and labels (`training_sets`), `ml.grounding`'s
own training (`modules`), masks of the generated and of the drawn pictures.
"""

from collections.abc import Sequence

import pandas as pd

from ml.compute.batching import Batches
from ml.diffusion.loading import load_pipeline
from ml.grounding.features import FeatureSource
from ml.grounding.module import GroundingModule
from ml.grounding.validation import predict_masks
from ml.studies.modules import (
    module_recipe,
    modules_made,
    trained_modules,
    training_precision,
)
from ml.studies.parallel import run_tasks
from ml.studies.records import Record
from ml.studies.scores import raw_rows
from ml.studies.specs import Spec, vocabulary_of
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import (
    drawn_pictures,
    drawn_training_pictures,
    few_pictures,
    judged_pictures,
    training_pictures,
)

BATCH = 40  # pictures that are scored at once


def train_all(run: StudyRun, specs: Sequence[Spec]) -> None:
    """Trains and scores every specification that is not in place, `run.workers` at once."""
    for make in (training_pictures, judged_pictures, drawn_pictures):
        make(run)
    for seen in {s.seen for s in specs if s.few}:
        few_pictures(run, seen)
    if any(s.labels != "detector" for s in specs):
        drawn_training_pictures(run)
    left = [s for s in dict.fromkeys(specs) if not done(run, s)]
    run_tasks("grounding", [(train_and_score, run, spec) for spec in left], run.workers)


def have_modules(run: StudyRun, specs: Sequence[Spec]) -> None:
    """Trains the modules of specifications for what asks them itself: rows that were taken over
    (`published`) are here without them."""
    left = [s for s in dict.fromkeys(s.trained for s in specs) if not modules_made(run, s)]
    if left:
        training_pictures(run)
        run_tasks("modules", [(_train_modules, run, spec) for spec in left], run.workers)


def _train_modules(run: StudyRun, spec: Spec) -> str:
    trained_modules(run, spec, load_pipeline(run.diffusion))
    return spec.name


def rows_of(run: StudyRun, spec: Spec) -> pd.DataFrame:
    """Its raw rows (`ml.studies.scores.RAW`, where its pixels fell) of all seeds; made if
    missing."""
    if done(run, spec):
        return pd.read_parquet(run.table_path(spec.name))
    return run.table(spec.name, recipe_of(run, spec), lambda: _train_and_score(run, spec))


def train_and_score(run: StudyRun, spec: Spec) -> str:
    rows = rows_of(run, spec)
    unseen = rows[(rows.source == "generated") & (rows.cell == "two_unseen")].iou.mean()
    return f"{spec.name}: two unseen {100 * unseen:.1f}"


def done(run: StudyRun, spec: Spec) -> bool:
    """Whether its raw rows are in place: made on a machine like this one, or with the precision
    that the profile asks for, which this one may only emulate."""
    path = run.table_path(spec.name)
    return any(run.in_place(path, recipe_of(run, spec, as_asked)) for as_asked in (False, True))


def recipe_of(run: StudyRun, spec: Spec, as_asked: bool = False) -> str:
    """Digest of what its raw rows are made from. as_asked: see `module_recipe`."""
    return run.recipe(rows=module_recipe(run, spec, 0, as_asked), seeds=run.size.seeds)


def precision_of(run: StudyRun, spec: Spec) -> str:
    """What the modules of its rows, which are in place, were trained in."""
    as_asked = run.in_place(run.table_path(spec.name), recipe_of(run, spec, as_asked=True))
    return run.params.grounding.precision if as_asked else training_precision(run)


def _train_and_score(run: StudyRun, spec: Spec) -> pd.DataFrame:
    pipe = load_pipeline(run.diffusion)
    modules = trained_modules(run, spec, pipe)
    sets = [[r.at(spec.place) for r in judged_pictures(run) if r.whole]]
    if spec.place == 0:  # the drawn scenes were brought to the last step's timestep alone
        plain = Spec(spec.vocabulary, spec.variant, learned_upsampling=spec.learned_upsampling)
        ways = (0, 1) if spec == plain else (0,)
        sets += [[r.at(place) for r in drawn_pictures(run)] for place in ways]
    return pd.concat(
        [score(run, spec, pipe, modules, records) for records in sets], ignore_index=True
    )


def score(
    run: StudyRun, spec: Spec, pipe, modules: Sequence[GroundingModule], records: Sequence[Record]
) -> pd.DataFrame:
    """Raw rows of every module on pictures of one source, features computed once for all."""
    vocabulary = vocabulary_of(spec)
    rows: list[dict] = []
    for part, _ in Batches(BATCH).run(records, len):
        source = FeatureSource(pipe, part, [r.evidence for r in part], blocks=spec.blocks)
        batch = source.batch(range(len(part)))
        for seed, module in enumerate(modules):
            masks = predict_masks(module, batch)
            for record, found in zip(part, masks, strict=True):
                rows += raw_rows(
                    record,
                    found,
                    vocabulary,
                    {"method": spec.name, "seed": seed, "split": spec.vocabulary},
                )
    return pd.DataFrame(rows)
