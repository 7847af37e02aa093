"""Trains grounding modules of both variants under many settings, on development pictures.

    python -m benchmarks.tune_grounding --prepare
    python -m benchmarks.tune_grounding --runs paper:learning_rate=0.0003,schedule=constant seeded:
    python -m benchmarks.tune_grounding --table

A run is a variant and what differs in its settings from the profile's (`--profile paper` by
default). Pictures, prompts and trainings have seeds that no study uses (SEED and up), and pictures
are made once. Judged as Protocol I is, on split 1: mIoU against the detector's masks. Every result
is added to `data/tune/results.jsonl`; a run that stands there already is not made again.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from functools import cached_property

import numpy as np
import torch
import yaml

from ml.compute.batching import Batches
from ml.diffusion.features import feature_channels
from ml.diffusion.loading import load_pipeline
from ml.diffusion.tokens import text_width
from ml.errors import EXIT_CODES, exit_path
from ml.grounding.config import GroundingConfig, make_config
from ml.grounding.features import FeatureSource
from ml.grounding.module import GroundingModule
from ml.grounding.training import train
from ml.grounding.validation import predict_masks
from ml.metrics.iou import binary_iou
from ml.metrics.protocol_one import class_mean_iou
from ml.pipeline.stages.triplets import subset_of
from ml.settings.params import Params
from ml.settings.profile import load_params
from ml.settings.sections import GroundingParams, VariantParams
from ml.studies import prompt_sets, sizes
from ml.studies.picture_sets import generated
from ml.studies.records import Record
from ml.studies.study_run import StudyRun
from ml.words.cells import CELLS, cell_of
from ml.words.vocabulary import Vocabulary, load_vocabulary

SEED = 1000
"""Of everything here. The studies' pictures are of seed 0, their trainings of seeds 0, 1 and 2."""
SPLIT = "voc-1"
SIZE = replace(sizes.FULL, name="tune", seeds=1, train_one=220, train_two=440, shard=60)
JUDGED_ONE, JUDGED_TWO = 3, {"two_seen": 60, "two_mixed": 60, "two_unseen": 70}
"""Judged pictures: of each class alone, and of two objects in all."""


class Development(StudyRun):
    """A run of its own folder and seed, with the settings of a profile."""

    @cached_property
    def params(self) -> Params:
        return replace(load_params("paper"), seed=SEED)

    @property
    def profile(self) -> str:
        return "tune"


def training_pictures(run: StudyRun) -> list[Record]:
    """One- and two-object pictures of split 1's seen classes, each with a mask at least."""
    split = load_vocabulary(SPLIT)
    seen = Vocabulary("seen", split.seen, (), split.words)
    prompts = prompt_sets.prompts_of(
        "train", SEED, seen, train_one=SIZE.train_one, train_two=SIZE.train_two
    )
    return [r for r in generated(run, "train", prompts) if any(r.rles)]


def judged_pictures(run: StudyRun) -> list[Record]:
    """Pictures of all five cells, those whose every word the detector found."""
    split, rng = load_vocabulary(SPLIT), np.random.default_rng([SEED, 9])
    pairs = {
        "two_seen": itertools.combinations(split.seen, 2),
        "two_mixed": itertools.product(split.seen, split.unseen),
        "two_unseen": itertools.combinations(split.unseen, 2),
    }
    chosen = [(name,) for name in split.classes] * JUDGED_ONE
    for cell, known in pairs.items():
        known = list(known)
        places = np.resize(rng.permutation(len(known)), JUDGED_TWO[cell])
        chosen += [known[i][:: rng.choice([-1, 1])] for i in places]
    prompts = [
        prompt_sets.plain_prompt(f"sim-{i:06d}", names, SEED) for i, names in enumerate(chosen)
    ]
    return [r for r in generated(run, "judged", prompts) if r.whole]


class Bench:
    """The pictures, with their features, that every run shares."""

    def __init__(self, run: StudyRun) -> None:
        self.run, self.pipe = run, load_pipeline(run.diffusion)
        share = run.params.triplets.validation_share
        parts: dict[str, list[Record]] = {"train": [], "validation": []}
        for record in training_pictures(run):
            parts[subset_of(record.key, "train", share)].append(record)
        self.judged = judged_pictures(run)
        self.sources = [
            FeatureSource(self.pipe, own, [r.evidence for r in own])
            for own in (*parts.values(), self.judged)
        ]

    def run(self, variant: str, changes: dict, seed: int) -> dict:
        """Trains one module and scores it: settings, best step, seconds, mIoU % of each cell."""
        params, changed = settings(self.run.params.grounding, variant, changes)
        channels = feature_channels(self.pipe.unet)
        example = self.judged[0]
        config = replace(
            make_config(
                params, channels, text_width(self.pipe), example.size[0], example.timestep, variant
            ),
            **changed,
        )
        torch.manual_seed(SEED + seed)
        module, started = GroundingModule(config).to(self.pipe.device), time.perf_counter()
        train_source, validation, judged = self.sources
        progress = train(
            module,
            train_source,
            validation,
            [s.entities for s in validation.samples],
            params,
            SEED + seed,
        )
        seconds = time.perf_counter() - started
        return {
            "best_step": progress.best_step,
            "seconds": round(seconds),
            "validation": round(progress.best_miou, 1),
            **self._scores(module, judged),
        }

    def _scores(self, module: GroundingModule, source: FeatureSource) -> dict[str, float]:
        unseen = set(load_vocabulary(SPLIT).unseen)
        found: dict[str, tuple[list, list]] = {cell: ([], []) for cell in CELLS}
        for part, _ in Batches(40).run(range(len(self.judged)), len):
            for i, masks in zip(part, predict_masks(module, source.batch(part)), strict=True):
                record = self.judged[i]
                ious, classes = found[cell_of(record.entities, unseen)]
                ious += [binary_iou(*pair) for pair in zip(masks, record.masks, strict=False)]
                classes += record.entities
        return {cell: round(class_mean_iou(*own), 1) for cell, own in found.items()}


def settings(params: GroundingParams, variant: str, changes: dict) -> tuple[GroundingParams, dict]:
    """The profile's settings with changes, and the changes to the module's config. Raises
    ValueError for a name that is none of theirs."""
    names = {
        kind: {f.name for f in fields(kind)}
        for kind in (VariantParams, GroundingParams, GroundingConfig)
    }
    if unknown := set(changes) - set().union(*names.values()):
        raise ValueError(
            f"unknown settings {sorted(unknown)}: expected fields of "
            f"{[kind.__name__ for kind in names]}"
        )
    own = {name: value for name, value in changes.items() if name in names[VariantParams]}
    whole = {name: value for name, value in changes.items() if name in names[GroundingParams]}
    built = {name: value for name, value in changes.items() if name not in own | whole}
    return replace(params, **whole | {variant: replace(params.training(variant), **own)}), built


def parse(text: str) -> tuple[str, dict]:
    """ "paper:learning_rate=0.0003,schedule=constant" as a variant and its changes."""
    variant, _, listed = text.partition(":")
    pairs = [pair.split("=") for pair in listed.split(",") if pair]
    return variant, {name: yaml.safe_load(value) for name, value in pairs}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prepare", action="store_true", help="only make the pictures")
    parser.add_argument("--runs", nargs="*", default=[], help="variant:setting=value,...")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="added to SEED")
    parser.add_argument("--table", action="store_true", help="print all results as markdown")
    chosen = parser.parse_args()
    run = Development(SIZE)
    file = run.folder / "results.jsonl"
    if chosen.prepare:
        print(len(training_pictures(run)), len(judged_pictures(run)), "pictures")
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    bench = Bench(run) if chosen.runs else None
    for text, seed in itertools.product(chosen.runs, chosen.seeds):
        variant, changes = parse(text)
        params, built = settings(run.params.grounding, variant, changes)
        asked = {
            "variant": variant,
            "seed": seed,
            "steps": params.steps,
            "batch_size": params.batch_size,
            **asdict(params.training(variant)),
            **built,
        }
        if any(asked == settings_of(row) for row in done):
            continue
        row = asked | bench.run(variant, changes, seed)
        done.append(row)
        with file.open("a") as handle:
            handle.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    if chosen.table:
        print(table(done))


SCORES = ("validation", *CELLS)


def settings_of(row: dict) -> dict:
    """What a result was asked for: all of its fields but what came out."""
    return {
        name: value for name, value in row.items() if name not in (*SCORES, "best_step", "seconds")
    }


def table(rows: Sequence[dict]) -> str:
    """A row a setting, means over its seeds."""
    groups: dict[str, list[dict]] = {}
    for row in rows:
        own = {name: value for name, value in settings_of(row).items() if name != "seed"}
        groups.setdefault(json.dumps(own), []).append(row)
    out = ["| settings | seeds | " + " | ".join(SCORES) + " |", "|---" * (len(SCORES) + 2) + "|"]
    for key, own in groups.items():
        means = [f"{np.mean([row[name] for row in own]):.1f}" for name in SCORES]
        said = ", ".join(f"{name} {value}" for name, value in json.loads(key).items())
        out.append(f"| {said} | {len(own)} | " + " | ".join(means) + " |")
    return "\n".join(out)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
