"""Protocol II's segmenters: what each is trained on, its labels, its training and confusions.

Here: sets of pictures and one training a (model, seed), each made once. Not here: which figures
come of them (`zero_shot`), the training loop (`ml.segmenters`).
"""

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ml.compute.batching import Batches
from ml.diffusion.loading import load_pipeline
from ml.drawn_world.benchmark import BENCHMARK_SHA256, benchmark_scenes
from ml.drawn_world.world import draw_scene, scene_seed
from ml.grounding.features import FeatureSource
from ml.grounding.module import probabilities
from ml.images.contact_sheet import spread
from ml.images.leaks import find_overlap, small
from ml.images.overlays import IGNORED
from ml.metrics.iou import confusions
from ml.pipeline.stages.real_bound import benchmark_copies, label_maps, scene_classes
from ml.pipeline.stages.synthetic_dataset import label_map, reject_reason
from ml.segmenters import architecture
from ml.segmenters.prediction import predict_each
from ml.segmenters.training import train
from ml.store.files import atomic
from ml.store.shards import split
from ml.studies import design
from ml.studies.sets import Record, generated
from ml.studies.trainings import BATCH, Spec, load_module, recipe_of
from ml.studies.workspace import Lab
from ml.words.vocabulary import load_vocabulary

LABELLER = Spec(vocabulary=design.ZERO_SHOT)
PART = 200  # pictures labelled in one task
SHOWN = 8  # benchmark pictures whose label maps are kept
SEEN_START, EVERY_START = 300_000, 320_000  # scenes of seen classes, of all: seeds in "paper"


@dataclass(frozen=True)
class Model:
    """A row of Protocol II. shares: of `Size.synthetic`, how many pictures of each source.

    Sources: `one` and `two` objects generated, `rich_one` and `rich_two` with the richer prompts,
    drawn scenes of `seen` classes and of `every` class, both with true labels.
    """

    label: str
    name: str  # of its files
    shares: dict[str, float]


def _mixture(share: float) -> dict[str, float]:
    return {"one": share / 2, "two": share / 2}


MODELS = (
    Model("A: one object", "a", {"one": 1.0}),
    Model("B: two objects", "b", {"two": 1.0}),
    Model("C: mixture", "c", _mixture(1.0)),
    Model("D: mixture and real seen", "d", _mixture(1.0) | {"seen": 0.5}),
    Model("E: as D, richer prompts", "e", {"rich_one": 0.5, "rich_two": 0.5, "seen": 0.5}),
    Model("real bound: all classes labelled", "bound", {"every": 1.0}),
)
SIZES = (
    Model("C, a quarter of the pictures", "quarter", _mixture(0.25)),
    Model("C, half of the pictures", "half", _mixture(0.5)),
    MODELS[2],
    Model("C, twice the pictures", "twice", _mixture(2.0)),
)


def composition(size: design.Size, model: Model) -> dict[str, int]:
    """Pictures of each source, before any is rejected."""
    return {source: int(share * size.synthetic) for source, share in model.shares.items()}


def prompts_of(lab: Lab, name: str) -> list[dict]:
    """Of the set `synthetic` or `rich`."""
    make = {"synthetic": design.synthetic_prompts, "rich": design.rich_prompts}[name]
    return make(lab.size, lab.params.seed)


def sets_of(models) -> list[str]:
    """The generated sets that some models need: of `synthetic` and `rich`."""
    sources = {source for model in models for source in model.shares}
    needs = {"synthetic": {"one", "two"}, "rich": {"rich_one", "rich_two"}}
    return [name for name, own in needs.items() if own & sources]


def pictures_of(lab: Lab, name: str) -> list[Record]:
    return generated(lab, name, prompts_of(lab, name))


def labelling(lab: Lab, name: str) -> list[tuple[Path, str, list[int]]]:
    """The parts that a set's labels are kept in: file, recipe, places in the set.

    A file holds `maps` uint8 (seeds, pictures, H, W) in the vocabulary's numbers, 255 ignored, and
    `reasons` (seeds, pictures), "" for a picture to keep.
    """
    prompts, folder = prompts_of(lab, name), lab.folder / "labels"
    fixed = {
        "labeller": recipe_of(lab, LABELLER),
        "synthetic": lab.params.section("synthetic"),
        "benchmark": BENCHMARK_SHA256,
    }
    return [
        (
            folder / f"{name}-{i:03d}.npz",
            lab.recipe(prompts=[prompts[k] for k in places], **fixed),
            list(places),
        )
        for i, places in enumerate(split(range(len(prompts)), PART))
    ]


def label_part(lab: Lab, name: str, part: int) -> str:
    """Labels a part of a set with the modules of all seeds, on features computed once."""
    path, recipe, places = labelling(lab, name)[part]
    everyone = pictures_of(lab, name)
    records = [everyone[k] for k in places]
    pipe = load_pipeline(lab.diffusion)
    modules = [load_module(lab, LABELLER, seed) for seed in range(lab.size.seeds)]
    copies = set(
        find_overlap(
            [small(r.image) for r in records], [scene.image for scene in benchmark_scenes()]
        )
    )
    overlaps = [i in copies for i in range(len(records))]
    maps, reasons = label(records, overlaps, pipe, modules, lab.params.synthetic)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, maps=maps, reasons=reasons)
    lab.sign(path, recipe)
    return f"{path.stem}: {(reasons == '').mean():.0%} kept"


@torch.inference_mode()
def label(records, overlaps, pipe, modules, synthetic) -> tuple[np.ndarray, np.ndarray]:
    """What each module makes of pictures, as the stage `synthetic_dataset` does.

    records: n pictures; overlaps: n bools, copies of benchmark pictures. Returns label maps uint8
    (modules, n, H, W) and reasons to reject (modules, n), "" for those to keep.
    """
    vocabulary = load_vocabulary(design.ZERO_SHOT)
    maps = np.zeros((len(modules), len(records), *records[0].size), np.uint8)
    reasons = np.zeros((len(modules), len(records)), "U32")
    for places, _ in Batches(BATCH).run(range(len(records)), len):
        own = [records[i] for i in places]
        batch = FeatureSource(pipe, own, [r.evidence for r in own]).batch(range(len(own)))
        for seed, module in enumerate(modules):
            logits = module(batch.features, batch.text, batch.valid, batch.evidence)
            found = probabilities(logits, module.config).cpu().numpy()
            for i, record, chances in zip(places, own, found, strict=True):
                labels = [vocabulary.label(entity) for entity in record.entities]
                made = label_map(
                    chances[: len(labels)], labels, synthetic.ignore_band, module.config.competition
                )
                areas = [float((made == value).mean()) for value in labels]
                maps[seed, i] = made
                reasons[seed, i] = reject_reason(
                    areas, float((made == IGNORED).mean()), overlaps[i], synthetic
                )
    return maps, reasons


def synthetic_part(lab: Lab, source: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The accepted of the first `count` pictures of a source: uint8 (n,H,W,3) and label maps.

    Raises ValueError when the source has fewer pictures.
    """
    name = "rich" if source.startswith("rich") else "synthetic"
    records = pictures_of(lab, name)
    objects = 2 if source.endswith("two") else 1
    places = [i for i, r in enumerate(records) if len(r.entities) == objects][:count]
    if len(places) < count:
        raise ValueError(
            f"source {source!r} has {len(places)} pictures, {count} were asked for: "
            "expected a share of Size.synthetic that the set can fill"
        )
    stored = [np.load(path) for path, _, _ in labelling(lab, name)]
    maps = np.concatenate([part["maps"][seed] for part in stored])
    kept = np.concatenate([part["reasons"][seed] for part in stored]) == ""
    places = [i for i in places if kept[i]]
    size = records[0].size
    images = np.array([records[i].image for i in places], np.uint8)
    return images.reshape(-1, *size, 3), maps[places]


def real_part(source: str, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Drawn scenes with true labels, `seen` classes only or `every` one, half of one object and
    half of two; those that are copies of benchmark pictures left out."""
    vocabulary = load_vocabulary(design.ZERO_SHOT)
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


def training_pictures(lab: Lab, model: Model, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All that a model learns from: uint8 (n,H,W,3) and label maps uint8 (n,H,W)."""
    parts = [
        real_part(source, count, lab.params.seed)
        if source in ("seen", "every")
        else synthetic_part(lab, source, count, seed)
        for source, count in composition(lab.size, model).items()
    ]
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def result(lab: Lab, model: Model, seed: int) -> tuple[Path, str]:
    """File and recipe of a training's result.

    The file holds `confusions` int32 (400, n+1, n+1), one a benchmark picture, `pictures`, how many
    it learned from, and the label maps uint8 (SHOWN, H, W) of the pictures `shown`.
    """
    labels = [recipe for name in sets_of([model]) for _, recipe, _ in labelling(lab, name)]
    backbone = lab.workspace.digest(lab.params, "segmenter.backbone")
    recipe = lab.recipe(
        model=asdict(model),
        training=seed,
        labels=labels,
        backbone=backbone,
        counts=composition(lab.size, model),
        segmenter=lab.params.section("segmenter"),
        seed=lab.params.seed,
        vocabulary=load_vocabulary(design.ZERO_SHOT).digest,
        starts=[SEEN_START, EVERY_START],
        benchmark=BENCHMARK_SHA256,
    )
    return lab.folder / "raw" / f"zero-shot-{model.name}-seed{seed}.npz", recipe


def train_and_score(lab: Lab, model: Model, seed: int) -> str:
    """Trains a segmenter and leaves its confusions; a killed training goes on from its last
    checkpoint."""
    path, recipe = result(lab, model, seed)
    images, labels = training_pictures(lab, model, seed)
    vocabulary, own = load_vocabulary(design.ZERO_SHOT), lab.params.segmenter
    torch.manual_seed(seed)  # of the weights that did not come trained
    segmenter = architecture(own.architecture).build(
        lab.workspace.model(own.backbone), ["background", *vocabulary.classes], own
    )
    progress = lab.folder / "progress" / f"{path.stem}-{recipe[:12]}"
    train(segmenter, images, labels, own, progress, seed)
    scenes = list(benchmark_scenes())
    found = predict_each(segmenter, [scene.image for scene in scenes])
    counts = confusions(found, label_maps(scenes, vocabulary), len(vocabulary.classes))
    shown = spread(len(scenes), SHOWN)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            confusions=counts.astype(np.int32),
            pictures=len(images),
            maps=np.stack([found[i] for i in shown]),
            shown=shown,
        )
    lab.sign(path, recipe)
    shutil.rmtree(progress, ignore_errors=True)
    return f"{path.stem}: {len(images)} pictures"
