"""OVAM's two baselines of Protocol I: attribution prompts, and queries optimised on one label.

The judged prompts are sampled once more with the recorders of `ml.baselines.ovam`, and so
are some training pictures, on whose seen ones the thresholds of a split are chosen. Rows come out
in the form of `ml.studies.scores.RAW`. The optimised queries have seen one labelled picture of
EVERY class, so no class is unseen for them: their "unseen" cells say only which pictures those are.
Drawn scenes have no sampling run and no rows here.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from ml.baselines.daam import (
    best_threshold,
    by_maximum,
    candidate_thresholds,
    strongest,
    threshold_masks,
)
from ml.baselines.ovam import attribution_recorder, own_maps, query_recorder
from ml.baselines.ovam_query import ITERATIONS, LEARNING_RATE, optimise_query
from ml.diffusion.loading import load_pipeline
from ml.diffusion.sampling import sample
from ml.store.files import atomic
from ml.store.shards import shard_files, split, write_shards
from ml.studies.design import everything
from ml.studies.scores import raw_rows
from ml.studies.sets import Maker, Record
from ml.studies.trainings import judged_pictures, training_pictures
from ml.studies.workspace import Lab
from ml.words.vocabulary import load_vocabulary

ATTRIBUTION, OPTIMISED = "ovam-attribution", "ovam-optimised"
METHODS = (ATTRIBUTION, OPTIMISED)
THRESHOLD_SHARE = 0.4
"""Training pictures that thresholds are chosen on, all splits together, as share of
`Size.fixed`: 160 at full size, of which a split's seen ones are about half."""

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shape", pa.list_(pa.int64())),  # (n,h,w)
        (ATTRIBUTION, pa.binary()),  # float16 (n,h,w), summed over layers and steps
        (OPTIMISED, pa.binary()),  # float16 (S,n,h,w) in 0..1, S labelled pictures a class
    ]
)


def make(lab: Lab) -> None:
    """Queries of all classes, then the maps of judged and of threshold pictures; resumable."""
    labelled = labelled_pictures(lab)
    recipe = _query_recipe(lab, labelled)
    left = [
        name for name in everything().classes if not lab.in_place(_query_file(lab, name), recipe)
    ]
    lab.run("text queries", [(optimise, lab, name, labelled[name], recipe) for name in left])
    for name, records in _map_sets(lab, labelled).items():
        asked, recipe = [_asked(r) for r in records], _map_recipe(lab, labelled, records)
        write_shards(
            _map_folder(lab, name),
            recipe,
            split(asked, lab.size.shard),
            _Maps(lab),
            _SCHEMA,
            lab.workers,
        )
        lab.sign(_map_folder(lab, name), recipe)


def made(lab: Lab) -> bool:
    """Whether `make` has run with these settings."""
    labelled = labelled_pictures(lab)
    return all(
        lab.in_place(_map_folder(lab, name), _map_recipe(lab, labelled, records))
        for name, records in _map_sets(lab, labelled).items()
    )


def rows(lab: Lab, split_name: str) -> pd.DataFrame:
    """Both methods' raw rows on the judged pictures in a split, from the maps that `make` left.

    Seed k of the optimised queries is the k-th labelled picture of each class. A seed's threshold,
    and whether a pixel keeps its strongest word alone, are the best on the accepted masks of
    training pictures of the split's seen classes to which no query was fitted. Raises ValueError
    when `make` has not run, or with other settings.
    """
    labelled = labelled_pictures(lab)
    sets = _map_sets(lab, labelled)
    recipe = lab.recipe(
        maps={name: _map_recipe(lab, labelled, own) for name, own in sets.items()},
        split=split_name,
        candidates=lab.params.benchmark.daam_thresholds,
    )
    return lab.table(
        f"queries-{split_name}", recipe, lambda: _rows(lab, split_name, labelled, sets)
    )


def _rows(
    lab: Lab, split_name: str, labelled: dict[str, list[Record]], sets: dict[str, list[Record]]
) -> pd.DataFrame:
    vocabulary = load_vocabulary(split_name)
    maps = {name: _read_maps(lab, name, labelled, records) for name, records in sets.items()}
    seen = [
        place
        for place, record in enumerate(sets["threshold"])
        if set(record.entities) <= set(vocabulary.seen)
    ]
    candidates = candidate_thresholds(lab.params.benchmark.daam_thresholds)
    said = []
    for method, seed in [(ATTRIBUTION, 0), *((OPTIMISED, k) for k in range(lab.size.seeds))]:
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
            said += raw_rows(
                record, masks, vocabulary, {"method": method, "seed": seed, "split": split_name}
            )
    return pd.DataFrame(said)


def labelled_pictures(lab: Lab) -> dict[str, list[Record]]:
    """The first `Size.seeds` one-object training pictures of each class with an accepted mask.

    Raises ValueError when a class has none; one with fewer than `Size.seeds` gives them in turn.
    """
    found: dict[str, list[Record]] = {name: [] for name in everything().classes}
    for record in training_pictures(lab):
        if len(record.entities) == 1 and record.whole:
            found[record.entities[0]].append(record)
    if none := [name for name, own in found.items() if not own]:
        raise ValueError(
            f"no labelled one-object picture of {none} in the training set; raise Size.train_one"
        )
    return {name: [own[k % len(own)] for k in range(lab.size.seeds)] for name, own in found.items()}


def optimise(lab: Lab, name: str, labelled: Sequence[Record], recipe: str) -> str:
    """Writes a class's queries, float32 (S,2,D), one a labelled picture."""
    pipe, diffusion = (
        load_pipeline(lab.diffusion),
        lab.params.diffusion,
    )
    made = [
        optimise_query(
            pipe,
            r.text,
            r.seed,
            r.masks[0],
            r.words[0],
            steps=diffusion.steps,
            guidance_scale=diffusion.guidance_scale,
            iterations=_iterations(lab),
        )
        for r in labelled
    ]
    with atomic(_query_file(lab, name)) as temporary, temporary.open("wb") as file:
        np.save(file, torch.stack(made).numpy())
    lab.sign(_query_file(lab, name), recipe)
    return name


def _iterations(lab: Lab) -> int:
    """Fewer in a run that is cut down in everything else too."""
    return min(ITERATIONS, lab.params.grounding.steps)


def _query_file(lab: Lab, name: str) -> Path:
    return lab.folder / "queries" / f"{name}.npy"


def _query_recipe(lab: Lab, labelled: dict[str, list[Record]]) -> str:
    chosen = {name: [[r.text, r.seed, r.rles[0]] for r in own] for name, own in labelled.items()}
    return lab.recipe(queries=chosen, iterations=_iterations(lab), learning_rate=LEARNING_RATE)


def _map_sets(lab: Lab, labelled: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """The judged pictures, and the training pictures for thresholds: none that is labelled."""
    fitted = {r.key for own in labelled.values() for r in own}
    free = [r for r in training_pictures(lab) if r.key not in fitted and any(r.rles)]
    chosen = np.random.default_rng(0).permutation(len(free))[
        : round(THRESHOLD_SHARE * lab.size.fixed)
    ]
    return {
        "judged": [r for r in judged_pictures(lab) if r.whole],
        "threshold": [free[i] for i in sorted(chosen)],
    }


def _asked(record: Record) -> dict:
    return {
        "key": record.key,
        "text": record.text,
        "seed": record.seed,
        "words": list(record.words),
        "entities": list(record.entities),
    }


def _map_folder(lab: Lab, name: str) -> Path:
    return lab.folder / "attention" / name


def _map_recipe(lab: Lab, labelled: dict[str, list[Record]], records: Sequence[Record]) -> str:
    return lab.recipe(maps=[_asked(r) for r in records], queries=_query_recipe(lab, labelled))


class _Maps(Maker):
    """A shard's maps; the queries are loaded where it is made."""

    @cached_property
    def queries(self) -> dict[str, torch.Tensor]:
        return {
            name: torch.from_numpy(np.load(_query_file(self.lab, name)))
            for name in everything().classes
        }

    def rows(self, asked: Sequence[dict]) -> list[dict]:
        diffusion, seeds = self.lab.params.diffusion, self.lab.size.seeds
        words = [a["words"] for a in asked]
        with torch.no_grad():
            recorders = [
                attribution_recorder(self.pipe, words),
                query_recorder(
                    self.pipe,
                    [
                        [self.queries[entity][k] for k in range(seeds) for entity in a["entities"]]
                        for a in asked
                    ],
                ),
            ]
        sample(
            self.pipe,
            [a["text"] for a in asked],
            [a["seed"] for a in asked],
            steps=diffusion.steps,
            guidance_scale=diffusion.guidance_scale,
            recorders=recorders,
        )
        counts = [len(own) for own in words]
        attributed = own_maps(recorders[0].maps(), counts)
        optimised = own_maps(recorders[1].mean_maps(), [seeds * count for count in counts])
        return [
            {
                "key": a["key"],
                "shape": list(first.shape),
                ATTRIBUTION: first.numpy().astype("<f2").tobytes(),
                OPTIMISED: second.numpy().astype("<f2").tobytes(),
            }
            for a, first, second in zip(asked, attributed, optimised, strict=True)
        ]


def _read_maps(
    lab: Lab, name: str, labelled: dict[str, list[Record]], records: Sequence[Record]
) -> list[dict[str, np.ndarray]]:
    """For each record float32 (S,n,h,w) by method, S = 1 for the attribution prompts."""
    folder = _map_folder(lab, name)
    if not lab.in_place(folder, _map_recipe(lab, labelled, records)):
        raise ValueError(
            f"no attention maps by these settings in {folder}; run ml.studies.queries.make first"
        )
    files = shard_files(folder)[: len(split(records, lab.size.shard))]
    found = {row["key"]: row for file in files for row in pd.read_parquet(file).to_dict("records")}
    return [
        {
            method: np.frombuffer(found[r.key][method], "<f2")
            .astype(np.float32)
            .reshape(-1, *found[r.key]["shape"])
            for method in METHODS
        }
        for r in records
    ]
