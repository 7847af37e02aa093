"""OVAM's optimised queries: the labelled pictures, and a query fitted to each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ml.baselines.ovam_query import ITERATIONS, LEARNING_RATE, optimise_query
from ml.diffusion.loading import load_pipeline
from ml.store.files import atomic
from ml.studies.prompt_sets import all_classes
from ml.studies.records import Record
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import training_pictures


def labelled_pictures(run: StudyRun) -> dict[str, list[Record]]:
    """The first `Size.seeds` one-object training pictures of each class with an accepted mask.

    Raises ValueError when a class has none; one with fewer than `Size.seeds` gives them in turn.
    """
    found: dict[str, list[Record]] = {name: [] for name in all_classes().classes}
    for record in training_pictures(run):
        if len(record.entities) == 1 and record.whole:
            found[record.entities[0]].append(record)
    if none := [name for name, own in found.items() if not own]:
        raise ValueError(
            f"no labelled one-object picture of {none} in the training set; raise Size.train_one"
        )
    return {name: [own[k % len(own)] for k in range(run.size.seeds)] for name, own in found.items()}


def optimise(run: StudyRun, name: str, labelled: Sequence[Record], recipe: str) -> str:
    """Writes a class's queries, float32 (S,2,D), one a labelled picture."""
    pipe, diffusion = load_pipeline(run.diffusion), run.params.diffusion
    made = [
        optimise_query(
            pipe,
            r.text,
            r.seed,
            r.masks[0],
            r.words[0],
            steps=diffusion.steps,
            guidance_scale=diffusion.guidance_scale,
            iterations=_iterations(run),
        )
        for r in labelled
    ]
    path = query_file(run, name)
    with run.making(path, recipe), atomic(path) as temporary, temporary.open("wb") as file:
        np.save(file, torch.stack(made).numpy())
    return name


def _iterations(run: StudyRun) -> int:
    """Fewer in the quick size, where everything else is cut down too."""
    return min(ITERATIONS, run.params.grounding.steps)


def query_file(run: StudyRun, name: str) -> Path:
    return run.folder / "queries" / f"{name}.npy"


def query_recipe(run: StudyRun, labelled: dict[str, list[Record]]) -> str:
    chosen = {name: [[r.text, r.seed, r.rles[0]] for r in own] for name, own in labelled.items()}
    return run.recipe(queries=chosen, iterations=_iterations(run), learning_rate=LEARNING_RATE)
