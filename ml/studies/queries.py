"""OVAM's two baselines of Protocol I: attribution prompts, and queries optimised on one label.

The judged prompts are sampled once more with the recorders of `ml.baselines.ovam`, and so
are some training pictures, on whose seen ones the thresholds of a split are chosen. Rows come out
in the form of `ml.studies.scores.RAW`. The optimised queries have seen one labelled picture of
EVERY class, so no class is unseen for them: their "unseen" cells say only which pictures those are.
Drawn scenes have no sampling run and no rows here.
"""

import pandas as pd

from ml.baselines.daam import (
    best_threshold,
    by_maximum,
    candidate_thresholds,
    strongest,
    threshold_masks,
)
from ml.store.making import write_shards
from ml.store.shards import split
from ml.studies.parallel import processes, run_tasks
from ml.studies.prompt_sets import all_classes
from ml.studies.query_labels import labelled_pictures, optimise, query_file, query_recipe
from ml.studies.query_maps import (
    ATTRIBUTION,
    MAP_SCHEMA,
    OPTIMISED,
    QueryMapMaker,
    map_folder,
    map_recipe,
    map_request,
    map_sets,
    read_maps,
)
from ml.studies.records import Record
from ml.studies.scores import raw_rows
from ml.studies.study_run import StudyRun
from ml.words.vocabulary import load_vocabulary


def make(run: StudyRun) -> None:
    """Queries of all classes, then the maps of judged and of threshold pictures; resumable."""
    labelled = labelled_pictures(run)
    recipe = query_recipe(run, labelled)
    left = [
        name for name in all_classes().classes if not run.in_place(query_file(run, name), recipe)
    ]
    run_tasks(
        "text queries",
        [(optimise, run, name, labelled[name], recipe) for name in left],
        run.workers,
    )
    for name, records in map_sets(run, labelled).items():
        asked, recipe = [map_request(r) for r in records], map_recipe(run, labelled, records)
        with run.making(map_folder(run, name), recipe):
            write_shards(
                map_folder(run, name),
                recipe,
                split(asked, run.size.shard),
                QueryMapMaker(run),
                MAP_SCHEMA,
                processes(run.workers),
            )


def made(run: StudyRun) -> bool:
    """Whether `make` has run with these settings."""
    labelled = labelled_pictures(run)
    return all(
        run.in_place(map_folder(run, name), map_recipe(run, labelled, records))
        for name, records in map_sets(run, labelled).items()
    )


def rows(run: StudyRun, split_name: str) -> pd.DataFrame:
    """Both methods' raw rows on the judged pictures in a split, from the maps that `make` left.

    Seed k of the optimised queries is the k-th labelled picture of each class. A seed's threshold,
    and whether a pixel keeps its strongest word alone, are the best on the accepted masks of
    training pictures of the split's seen classes to which no query was fitted. Raises ValueError
    when `make` has not run, or with other settings.
    """
    labelled = labelled_pictures(run)
    sets = map_sets(run, labelled)
    recipe = run.recipe(
        maps={name: map_recipe(run, labelled, own) for name, own in sets.items()},
        split=split_name,
        candidates=run.params.benchmark.daam_thresholds,
    )
    return run.table(
        f"queries-{split_name}", recipe, lambda: _rows(run, split_name, labelled, sets)
    )


def _rows(
    run: StudyRun, split_name: str, labelled: dict[str, list[Record]], sets: dict[str, list[Record]]
) -> pd.DataFrame:
    vocabulary = load_vocabulary(split_name)
    maps = {name: read_maps(run, name, labelled, records) for name, records in sets.items()}
    seen = [
        place
        for place, record in enumerate(sets["threshold"])
        if set(record.entities) <= set(vocabulary.seen)
    ]
    candidates = candidate_thresholds(run.params.benchmark.daam_thresholds)
    found_rows = []
    for method, seed in [(ATTRIBUTION, 0), *((OPTIMISED, k) for k in range(run.size.seeds))]:
        own = {name: [each[method][seed] for each in every] for name, every in maps.items()}
        chosen = [
            best_threshold(
                [sets["threshold"][i] for i in seen],
                [own["threshold"][i] for i in seen],
                candidates,
                scale,
            )
            for scale in (by_maximum, strongest)
        ]
        best = int(chosen[1][1] > chosen[0][1])
        threshold, scale = chosen[best][0], (by_maximum, strongest)[best]
        for record, found in zip(sets["judged"], own["judged"], strict=True):
            masks = threshold_masks(found, record.size, threshold, scale)
            found_rows += raw_rows(
                record, masks, vocabulary, {"method": method, "seed": seed, "split": split_name}
            )
    return pd.DataFrame(found_rows)
