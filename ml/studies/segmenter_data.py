"""What a segmenter of Protocol II learns from: accepted pictures and drawn scenes."""

from dataclasses import replace

import numpy as np

from ml.datasets.drawn import benchmark_copies, label_maps, scene_classes
from ml.drawn_world.world import draw_scene, scene_seed
from ml.studies import sizes
from ml.studies.segmenter_models import Model, composition
from ml.studies.study_run import StudyRun
from ml.studies.synthetic_labels import labelling, pictures_of
from ml.words.vocabulary import load_vocabulary

SEEN_START, EVERY_START = 300_000, 320_000  # scenes of seen classes, of all: seeds in "paper"


def synthetic_part(
    run: StudyRun, source: str, count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The accepted of the first `count` pictures of a source: uint8 (n,H,W,3) and label maps.

    Raises ValueError when the source has fewer pictures.
    """
    name = "rich" if source.startswith("rich") else "synthetic"
    records = pictures_of(run, name)
    objects = 2 if source.endswith("two") else 1
    places = [i for i, r in enumerate(records) if len(r.entities) == objects][:count]
    if len(places) < count:
        raise ValueError(
            f"source {source!r} has {len(places)} pictures, {count} were asked for: "
            "expected a share of Size.synthetic that the set can fill"
        )
    stored = [np.load(path) for path, _, _ in labelling(run, name)]
    maps = np.concatenate([part["maps"][seed] for part in stored])
    kept = np.concatenate([part["reasons"][seed] for part in stored]) == ""
    places = [i for i in places if kept[i]]
    size = records[0].size
    images = np.array([records[i].image for i in places], np.uint8)
    return images.reshape(-1, *size, 3), maps[places]


def drawn_part(source: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Drawn scenes with true labels, `seen` classes only or `every` one, half of one object and
    half of two; those that are copies of benchmark pictures left out."""
    vocabulary = load_vocabulary(sizes.ZERO_SHOT)
    shown = replace(vocabulary, unseen=()) if source == "seen" else vocabulary
    start = SEEN_START if source == "seen" else EVERY_START
    counts = [1 + (i % 2) for i in range(count)]
    scenes = [
        draw_scene(scene_seed("paper", start + i), classes=classes)
        for i, classes in enumerate(scene_classes(counts, shown, seed))
    ]
    images = np.stack([scene.image for scene in scenes])
    kept = np.setdiff1d(np.arange(count), benchmark_copies(images))
    return images[kept], label_maps(scenes, vocabulary)[kept]


def training_pictures(run: StudyRun, model: Model, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All that a model learns from: uint8 (n,H,W,3) and label maps uint8 (n,H,W)."""
    parts = [
        drawn_part(source, count, run.params.seed)
        if source in ("seen", "every")
        else synthetic_part(run, source, count, seed)
        for source, count in composition(run.size, model).items()
    ]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
