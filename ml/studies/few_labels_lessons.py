"""The lessons of `few_labels`: unseen words taught by a few drawn scenes, and what it then makes of
others. Not here: the figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ml.diffusion.loading import load_pipeline
from ml.diffusion.pipeline import device_of
from ml.grounding.features import FeatureSource, Words
from ml.grounding.learning import (
    BATCH,
    QUERY,
    WAYS,
    learn_module,
    learn_queries,
    usual_rate,
    usual_steps,
)
from ml.grounding.module import GroundingModule
from ml.grounding.validation import predict_masks
from ml.pipeline.workspace import Workspace
from ml.store.manifest import read_manifest
from ml.studies.picture_sets import drawn
from ml.studies.records import Record
from ml.studies.scores import raw_rows
from ml.studies.sizes import SPLITS
from ml.studies.study_run import StudyRun
from ml.words.vocabulary import Vocabulary, load_vocabulary

NONE = "no labelled picture"
PROFILES = {"full": "micro", "quick": "ci"}
STARTS = {"labelled": 900_000, "judged": 910_000}
"""Of the scenes' seeds in "paper"."""


@dataclass(frozen=True)
class Counts:
    labelled: tuple[int, ...]  # pictures a word
    seeds: int
    one: int  # judged, a class
    two: int  # judged, a cell of two words


AT_ONCE = 40
"""Pictures that are judged at once."""
COUNTS = {"full": Counts((1, 5, 20), 3, 3, 45), "quick": Counts((1, 2), 2, 1, 6)}


def vocabulary() -> Vocabulary:
    return load_vocabulary(SPLITS[0])


def labelled_classes(run: StudyRun) -> list[tuple[str, ...]]:
    """Of the labelled scenes, as many for each unseen word, one word after the other: alone, and in
    every second one beside another of them, which is labelled, too."""
    unseen, most = vocabulary().unseen, max(COUNTS[run.size.name].labelled)
    return [
        (name,) if i % 2 == 0 else (name, unseen[(place + 1 + i // 2 % 4) % len(unseen)])
        for place, name in enumerate(unseen)
        for i in range(most)
    ]


def judged_classes(run: StudyRun) -> list[tuple[str, ...]]:
    """Of the judged scenes: every class alone, and so many of each cell of two words."""
    counts, own, rng = COUNTS[run.size.name], vocabulary(), np.random.default_rng(8)

    def some(names: Sequence[str], count: int) -> list[str]:
        return [str(name) for name in rng.choice(names, count, replace=False)]

    one = [(name,) for name in own.classes for _ in range(counts.one)]
    one += [(name,) for name in own.unseen for _ in range(counts.one)]  # as sure as the seen ones
    two = [tuple(some(names, 2)) for names in (own.seen, own.unseen) for _ in range(counts.two)]
    mixed = [(*some(own.seen, 1), *some(own.unseen, 1)) for _ in range(counts.two)]
    return [*one, *two, *mixed]


@dataclass(frozen=True)
class Lessons:
    """Words are taught and judged here: the model and the pictures' features are loaded once, and
    only where a lesson is missing."""

    run: StudyRun

    @property
    def folder(self) -> Path:
        """Of the module that is taught."""
        return Workspace(self.run.root, PROFILES[self.run.size.name]).folder("grounding_model")

    @cached_property
    def module(self) -> GroundingModule:
        return GroundingModule.from_pretrained(self.folder).to(device_of(self.pipe))

    @cached_property
    def pipe(self):
        return load_pipeline(self.run.diffusion)

    @cached_property
    def labelled(self) -> list[Record]:
        scenes = labelled_classes(self.run)
        return [r.by_truth() for r in drawn(self.run, "few_labels", scenes, STARTS["labelled"])]

    @cached_property
    def judged(self) -> FeatureSource:
        scenes = judged_classes(self.run)
        records = drawn(self.run, "few_judged", scenes, STARTS["judged"])
        return FeatureSource(self.pipe, records, [r.evidence for r in records])

    def rows(self, way: str, count: int, seed: int) -> pd.DataFrame:
        """Raw rows after a lesson. way: of WAYS, or NONE."""
        recipe = self.run.recipe(
            of="few_labels",
            module=read_manifest(self.folder).digest,
            scenes=[labelled_classes(self.run), judged_classes(self.run)],
            lesson=[way, count, seed],
            teaching=self._settings(way, count),
        )
        name = f"few_labels-{way if count else 'none'}-{count}-seed{seed}"
        return self.run.table(name, recipe, lambda: self._rows(way, count, seed))

    def _settings(self, way: str, count: int) -> list[float | None]:
        """Steps, rate and pictures a step."""
        shown = count * len(vocabulary().unseen)
        usual = [usual_steps(way, shown), usual_rate(way, shown)] if count else [None, None]
        return [*usual, BATCH]

    def _rows(self, way: str, count: int, seed: int) -> pd.DataFrame:
        module, queries = self.module, {}
        if count:
            own = self._shown(count, seed)
            source = FeatureSource(self.pipe, own, [r.evidence for r in own])
            if way == QUERY:
                queries = learn_queries(module, source, seed=seed)
            else:
                module = learn_module(module, source, seed=seed)
        self.judged.words = Words(self.pipe, queries)
        common = {"method": way, "seed": seed, "split": SPLITS[0], "pictures": count}
        rows: list[dict] = []
        for start in range(0, len(self.judged), AT_ONCE):
            places = range(start, min(start + AT_ONCE, len(self.judged)))
            for i, found in zip(
                places, predict_masks(module, self.judged.batch(places)), strict=True
            ):
                rows += raw_rows(self.judged.samples[i], found, vocabulary(), common)
        return pd.DataFrame(rows)

    def _shown(self, count: int, seed: int) -> list[Record]:
        """So many labelled pictures of each word; another choice for every seed."""
        most = max(COUNTS[self.run.size.name].labelled)
        rng = np.random.default_rng([seed, 9])
        chosen = [rng.permutation(most)[:count] for _ in vocabulary().unseen]
        return [self.labelled[n * most + i] for n, own in enumerate(chosen) for i in sorted(own)]


def raw(run: StudyRun) -> pd.DataFrame:
    """Raw rows of the judged pictures after every lesson, with their `pictures` (labelled, a word;
    0 before any lesson); made where they are missing."""
    lessons, counts = Lessons(run), COUNTS[run.size.name]
    every = [(way, n, k) for n in counts.labelled for way in WAYS for k in range(counts.seeds)]
    parts = [lessons.rows(*own) for own in [(NONE, 0, 0), *every]]
    return pd.concat(parts, ignore_index=True)
