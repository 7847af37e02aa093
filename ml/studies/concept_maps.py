"""ConceptAttention on the pictures of a run with a transformer: its inner products, kept a block at
a time, and the raw rows of masks from them.

The judged prompts are sampled once more with the concepts beside them, and so are some training
pictures, on whose seen ones a split's thresholds are chosen. The concepts are a picture's words and
BACKGROUNDS. Drawn scenes have no sampling run and no rows here.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from ml.baselines.concept_attention import BACKGROUND, concept_maps, concept_products
from ml.baselines.daam import (
    best_threshold,
    by_maximum,
    candidate_thresholds,
    strongest,
    threshold_masks,
)
from ml.drawn_world.captions import PLACES
from ml.store.making import write_shards
from ml.store.shards import split
from ml.store.sidecars import shard_files
from ml.studies.parallel import processes
from ml.studies.picture_makers import Maker
from ml.studies.query_maps import map_request, map_sets
from ml.studies.records import Record
from ml.studies.scores import raw_rows
from ml.studies.study_run import StudyRun
from ml.words.vocabulary import load_vocabulary

BACKGROUNDS = (BACKGROUND, *PLACES)
"""Concepts that take the pixels of no word: the drawn world's places beside the word "background",
which no caption of it has (the authors ask for floor, grass, tree and sky on photographs)."""

CONCEPT = "concept"
"""Method in the raw rows; "concept-2" is block 2's alone, counted from 0."""

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("shape", pa.list_(pa.int64())),  # (blocks,n + B,h,w), those of BACKGROUNDS last
        ("products", pa.binary()),  # float32
    ]
)

Products = list[torch.Tensor]
"""`concept_products` of each picture of a set."""


def make(run: StudyRun) -> None:
    """The products of judged and of threshold pictures; resumable."""
    for name, records in map_sets(run, {}).items():
        folder, recipe = _folder(run, name), _recipe(run, records)
        with run.making(folder, recipe):
            write_shards(
                folder,
                recipe,
                split([map_request(r) for r in records], run.size.shard),
                ProductMaker(run),
                SCHEMA,
                processes(run.workers),
            )


def rows(run: StudyRun, split_name: str) -> pd.DataFrame:
    """Raw rows of the judged pictures in a split: of each block alone, and of blocks in a row.

    Which blocks in a row, the threshold, and whether a pixel keeps its strongest word alone are the
    best on the accepted masks of training pictures of the split's seen classes; the column `blocks`
    says which blocks. Raises ValueError when `make` has not run, or with other settings.
    """
    sets = map_sets(run, {})
    recipe = run.recipe(
        concepts={name: _recipe(run, records) for name, records in sets.items()},
        split=split_name,
        candidates=run.params.benchmark.daam_thresholds,
    )
    return run.table(f"concepts-{split_name}", recipe, lambda: _rows(run, split_name, sets))


def _rows(run: StudyRun, split_name: str, sets: dict[str, list[Record]]) -> pd.DataFrame:
    vocabulary = load_vocabulary(split_name)
    products = {name: _read(run, name, records) for name, records in sets.items()}
    places = [
        place
        for place, record in enumerate(sets["threshold"])
        if set(record.entities) <= set(vocabulary.seen)
    ]
    seen = [sets["threshold"][i] for i in places]
    own = [products["threshold"][i] for i in places]
    count = products["judged"][0].shape[0]
    alone = {f"{CONCEPT}-{block}": [(block,)] for block in range(count)}
    in_a_row = [
        tuple(range(first, last + 1)) for first in range(count) for last in range(first, count)
    ]
    found: list[dict] = []
    for method, choices in (alone | {CONCEPT: in_a_row}).items():
        _, blocks, threshold, scale = max(
            (_fitted(run, seen, own, blocks) for blocks in choices), key=lambda fitted: fitted[0]
        )
        common = {
            "method": method,
            "seed": 0,
            "split": split_name,
            "threshold": threshold,
            "blocks": " ".join(map(str, blocks)),
        }
        for record, each in zip(sets["judged"], products["judged"], strict=True):
            masks = threshold_masks(_maps(each, blocks), record.size, threshold, scale)
            found += raw_rows(record, masks, vocabulary, common)
    return pd.DataFrame(found)


def _fitted(run: StudyRun, seen: list[Record], own: Products, blocks: tuple[int, ...]) -> tuple:
    """The best mIoU on threshold pictures, with the blocks, the threshold and the scale."""
    candidates = candidate_thresholds(run.params.benchmark.daam_thresholds)
    maps = [_maps(each, blocks) for each in own]
    tried = []
    for scale in (by_maximum, strongest):
        threshold, miou = best_threshold(seen, maps, candidates, scale)
        tried.append((miou, blocks, threshold, scale))
    return max(tried, key=lambda fitted: fitted[0])


def _maps(products: torch.Tensor, blocks: Sequence[int]) -> np.ndarray:
    """float32 (n,h,w) of the words; the backgrounds have no mask."""
    return concept_maps(products, blocks)[: -len(BACKGROUNDS)].numpy()


def _folder(run: StudyRun, name: str) -> Path:
    return run.folder / "concepts" / name


def _recipe(run: StudyRun, records: Sequence[Record]) -> str:
    return run.recipe(concepts=[map_request(r) for r in records], backgrounds=BACKGROUNDS)


class ProductMaker(Maker):
    """A shard's products."""

    def rows(self, asked: Sequence[dict]) -> list[dict]:
        diffusion = self.run.params.diffusion
        found = concept_products(
            self.pipe,
            [a["text"] for a in asked],
            [a["seed"] for a in asked],
            [[*a["words"], *BACKGROUNDS] for a in asked],
            steps=diffusion.steps,
            guidance_scale=diffusion.guidance_scale,
        )
        return [
            {
                "key": a["key"],
                "shape": list(own.shape),
                "products": own.numpy().astype("<f4").tobytes(),
            }
            for a, own in zip(asked, found, strict=True)
        ]


def _read(run: StudyRun, name: str, records: Sequence[Record]) -> Products:
    folder = _folder(run, name)
    if not run.in_place(folder, _recipe(run, records)):
        raise ValueError(
            f"{folder}: expected the products of these settings; run ml.studies.concept_maps.make "
            "first"
        )
    files = shard_files(folder)[: len(split(records, run.size.shard))]
    found = {row["key"]: row for file in files for row in pd.read_parquet(file).to_dict("records")}
    return [
        torch.from_numpy(np.frombuffer(found[r.key]["products"], "<f4").copy()).reshape(
            *found[r.key]["shape"]
        )
        for r in records
    ]
