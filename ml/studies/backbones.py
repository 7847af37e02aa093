"""Study: the method on a diffusion transformer beside the U-Net, by Protocol I and by exact truth,
and which of the transformer's blocks carry the grounding.

Prompts, seeds, drawn scenes, trainings and how a threshold is chosen are the same for both; the
generated pictures, and so the thresholds, are each model's own.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd

from ml.studies import concept_maps
from ml.studies.backbone_blocks import block_tables
from ml.studies.backbone_rows import (
    block_count,
    concept_labels,
    keep_rows,
    kept,
    labels_of,
    method_rows,
    noise_to_signal,
    precision,
    probes,
    runs,
)
from ml.studies.backbone_tables import (
    apart,
    cell_table,
    drawn_well,
    of_both,
    pictures_label,
    rows_from,
    verdict_of_pairs,
)
from ml.studies.baselines import make_baselines
from ml.studies.blocks import Block, Text
from ml.studies.cell_scores import counted
from ml.studies.parallel import run_tasks
from ml.studies.protocol_one_methods import TRAINED, spec_of
from ml.studies.records import GENERATED, NOISED
from ml.studies.specs import Spec
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import drawn_pictures, judged_pictures, training_pictures
from ml.studies.trainings import done, train_all

TITLE = "U-Net against diffusion transformer"
QUESTION = (
    "Do the grounding module and the contrast work on a diffusion transformer, beside the "
    "attention maps that it has, and which of its blocks carry the grounding?"
)
LIMITS = (
    "One checkpoint of each backbone, of different size and training (`docs/microworld.md`): a "
    "difference is of these two, and only where it is large of their kinds. The modules' settings "
    "were tuned on the U-Net (`docs/grounding-tuning.md`)."
)
DRAWN_NOTE = (
    "DAAM and ConceptAttention need a sampling run and have no row here. Each scene is brought to "
    "the timestep of its model's last denoising step."
)


def make(run: StudyRun, only: str | None = None) -> None:
    """Both backbones' modules and baselines, ConceptAttention's maps, and the probes of blocks; of
    the transformer nothing where its rows are in place."""
    for name, own in runs(run).items():
        if name == "transformer" and kept(run):
            return
        asked = {
            method
            for label, method in labels_of(name).items()
            if only in (None, label, label.removeprefix(f"{name}: "))
            or (only == pictures_label(name) and method == "daam")
        }
        specs = [
            spec_of(method, split)
            for method in TRAINED.values()
            if method in asked
            for split in run.size.splits
        ]
        _train(name, "modules", own, specs)
        if asked & {"daam", "contrast"}:
            with _timed(f"{name}: DAAM and contrast"):
                tasks = [(make_baselines, own, split) for split in run.size.splits]
                run_tasks("baselines", tasks, run.workers)
    own = runs(run)["transformer"]
    count = block_count(own)
    if only in (None, "transformer: ConceptAttention", *concept_labels(count)):
        with _timed("transformer: ConceptAttention"):
            concept_maps.make(own)
            tasks = [(concept_maps.rows, own, split) for split in run.size.splits]
            run_tasks("ConceptAttention", tasks, run.workers)
    specs = [spec for label, spec in probes(run).items() if only in (None, label)]
    _train("transformer", "blocks and steps", own, specs)
    if only is None:
        keep_rows(run)


def _train(name: str, what: str, run: StudyRun, specs: list[Spec]) -> None:
    """What is not trained yet; a run with nothing left needs no pictures."""
    if left := [spec for spec in specs if not done(run, spec)]:
        with _timed(f"{name}: pictures"):
            for pictures in (training_pictures, judged_pictures, drawn_pictures):
                pictures(run)
        with _timed(f"{name}: {what}"):
            train_all(run, left)


@contextmanager
def _timed(title: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    print(f"{title}: {(time.perf_counter() - started) / 60:.1f} min", flush=True)


def blocks(run: StudyRun) -> list[Block]:
    rows = {name: method_rows(run, name) for name in runs(run)}
    made: list[Block] = [
        Text(" ".join([LIMITS, _noise(run), _precisions(run)])),
        drawn_well(run, rows),
    ]
    for split in ("all", *run.size.splits):
        own = {name: rows_from(all_, GENERATED, split) for name, all_ in rows.items()}
        title = "Mean over the splits" if split == "all" else f"Split {split[-1]}"
        made.append(
            cell_table(
                run,
                f"{title}: each model's own pictures, the detector judges",
                own,
                _counted(own, split),
            )
        )
        if split == "all":
            made += _apart(run, of_both(own), "prompts that both drew")
    drawn = {name: rows_from(all_, NOISED, "all") for name, all_ in rows.items()}
    made.append(cell_table(run, "The same drawn scenes, exact truth", drawn, DRAWN_NOTE))
    made += _apart(run, drawn, "the same drawn scenes")
    return [*made, *block_tables(run, rows["transformer"])]


def _noise(run: StudyRun) -> str:
    """How noisy the latents are whose features are taken."""
    parts = [f"{noise_to_signal(own):.2g} in the {name}'s" for name, own in runs(run).items()]
    return (
        f"Features are those of the last of {run.params.diffusion.steps} denoising steps, where "
        f"noise to signal is {', '.join(parts)}; the contrast's timesteps have as much in both."
    )


def _precisions(run: StudyRun) -> str:
    """What each backbone's modules were trained in: halves may be of different machines."""
    found = {name: precision(run, name) for name in runs(run)}
    parts = [f"those of the {name} in {own}" for name, own in found.items() if own]
    return f"Modules were trained: {', '.join(parts)}." if parts else ""


def _counted(rows: dict[str, pd.DataFrame], split: str) -> str:
    """How many pictures of each backbone a table has."""
    shown = {name: counted(own[own.method == "daam"]) for name, own in rows.items()}
    added = ", splits added up" * (split == "all")
    return "; ".join(
        f"pictures of the {name}{added}: {text}" for name, text in shown.items() if text
    )


def _apart(run: StudyRun, rows: dict[str, pd.DataFrame], where: str) -> list[Block]:
    pairs = apart(run, rows, where)
    return [pairs, Text(verdict_of_pairs(pairs, run.size.seeds))] if pairs.rows else []
