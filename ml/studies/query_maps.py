"""OVAM's attention maps of judged pictures and of those that thresholds are chosen on."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from ml.baselines.ovam import attribution_recorder, own_maps, query_recorder
from ml.diffusion.sampling import sample
from ml.store.shards import split
from ml.store.sidecars import shard_files
from ml.studies.picture_makers import Maker
from ml.studies.prompt_sets import all_classes
from ml.studies.query_labels import query_file, query_recipe
from ml.studies.records import Record
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import judged_pictures, training_pictures

ATTRIBUTION, OPTIMISED = "ovam-attribution", "ovam-optimised"

METHODS = (ATTRIBUTION, OPTIMISED)

THRESHOLD_SHARE = 0.4
"""Training pictures that thresholds are chosen on, all splits together, as share of
`Size.fixed`: 160 at full size, of which a split's seen ones are about half."""

MAP_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shape", pa.list_(pa.int64())),  # (n,h,w)
        (ATTRIBUTION, pa.binary()),  # float16 (n,h,w), summed over layers and steps
        (OPTIMISED, pa.binary()),  # float16 (S,n,h,w) in 0..1, S labelled pictures a class
    ]
)


def map_sets(run: StudyRun, labelled: dict[str, list[Record]]) -> dict[str, list[Record]]:
    """The judged pictures, and the training pictures for thresholds: none that is labelled."""
    fitted = {r.key for own in labelled.values() for r in own}
    free = [r for r in training_pictures(run) if r.key not in fitted and any(r.rles)]
    chosen = np.random.default_rng(0).permutation(len(free))[
        : round(THRESHOLD_SHARE * run.size.fixed)
    ]
    return {
        "judged": [r for r in judged_pictures(run) if r.whole],
        "threshold": [free[i] for i in sorted(chosen)],
    }


def map_request(record: Record) -> dict:
    """What the maps of a picture depend on."""
    return {
        "key": record.key,
        "text": record.text,
        "seed": record.seed,
        "words": list(record.words),
        "entities": list(record.entities),
    }


def map_folder(run: StudyRun, name: str) -> Path:
    return run.folder / "attention" / name


def map_recipe(run: StudyRun, labelled: dict[str, list[Record]], records: Sequence[Record]) -> str:
    return run.recipe(maps=[map_request(r) for r in records], queries=query_recipe(run, labelled))


class QueryMapMaker(Maker):
    """A shard's maps; the queries are loaded where it is made."""

    @cached_property
    def queries(self) -> dict[str, torch.Tensor]:
        return {
            name: torch.from_numpy(np.load(query_file(self.run, name)))
            for name in all_classes().classes
        }

    def rows(self, asked: Sequence[dict]) -> list[dict]:
        diffusion, seeds = self.run.params.diffusion, self.run.size.seeds
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


def read_maps(
    run: StudyRun, name: str, labelled: dict[str, list[Record]], records: Sequence[Record]
) -> list[dict[str, np.ndarray]]:
    """For each record float32 (S,n,h,w) by method, S = 1 for the attribution prompts."""
    folder = map_folder(run, name)
    if not run.in_place(folder, map_recipe(run, labelled, records)):
        raise ValueError(
            f"no attention maps by these settings in {folder}; run ml.studies.queries.make first"
        )
    files = shard_files(folder)[: len(split(records, run.size.shard))]
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
