"""Protocol II's segmenters: one training a (model, seed), made once, and its confusions.

Not here: which figures come of them (`zero_shot`), the training loop (`ml.segmenters`).
"""

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ml.datasets.drawn import label_maps
from ml.drawn_world.benchmark import BENCHMARK_SHA256, benchmark_scenes
from ml.images.contact_sheet import spread
from ml.metrics.iou import confusions
from ml.segmenters import architecture
from ml.segmenters.prediction import predict_each
from ml.segmenters.training import train
from ml.store.files import atomic
from ml.studies import sizes
from ml.studies.segmenter_data import EVERY_START, SEEN_START, training_pictures
from ml.studies.segmenter_models import Model, composition, sets_of
from ml.studies.study_run import StudyRun
from ml.studies.synthetic_labels import labelling
from ml.words.vocabulary import load_vocabulary

SHOWN = 8  # benchmark pictures whose label maps are kept


def result(run: StudyRun, model: Model, seed: int) -> tuple[Path, str]:
    """File and recipe of a training's result.

    The file holds `confusions` int32 (400, n+1, n+1), one a benchmark picture, `pictures`, how many
    it learned from, and the label maps uint8 (SHOWN, H, W) of the pictures `shown`.
    """
    labels = [recipe for name in sets_of([model]) for _, recipe, _ in labelling(run, name)]
    backbone = run.workspace.digest(run.params, "segmenter.backbone")
    recipe = run.recipe(
        model=asdict(model),
        training=seed,
        labels=labels,
        backbone=backbone,
        counts=composition(run.size, model),
        segmenter=run.params.section("segmenter"),
        seed=run.params.seed,
        vocabulary=load_vocabulary(sizes.ZERO_SHOT).digest,
        starts=[SEEN_START, EVERY_START],
        benchmark=BENCHMARK_SHA256,
    )
    return run.folder / "raw" / f"zero-shot-{model.name}-seed{seed}.npz", recipe


def train_and_score(run: StudyRun, model: Model, seed: int) -> str:
    """Trains a segmenter and leaves its confusions; a killed training goes on from its last
    checkpoint."""
    path, recipe = result(run, model, seed)
    images, labels = training_pictures(run, model, seed)
    vocabulary, own = load_vocabulary(sizes.ZERO_SHOT), run.params.segmenter
    torch.manual_seed(seed)  # of the weights that did not come trained
    segmenter = architecture(own.architecture).build(
        run.workspace.model(own.backbone), ["background", *vocabulary.classes], own
    )
    progress = run.folder / "progress" / f"{path.stem}-{recipe[:12]}"
    train(segmenter, images, labels, own, progress, seed)
    scenes = list(benchmark_scenes())
    found = predict_each(segmenter, [scene.image for scene in scenes])
    counts = confusions(found, label_maps(scenes, vocabulary), len(vocabulary.classes))
    shown = spread(len(scenes), SHOWN)
    with run.making(path, recipe), atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            confusions=counts.astype(np.int32),
            pictures=len(images),
            maps=np.stack([found[i] for i in shown]),
            shown=shown,
        )
    shutil.rmtree(progress, ignore_errors=True)
    return f"{path.stem}: {len(images)} pictures"
