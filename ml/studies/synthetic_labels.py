"""Labels that the grounding modules give to the generated pictures of Protocol II."""

from pathlib import Path

import numpy as np
import torch

from ml.compute.batching import Batches
from ml.diffusion.loading import load_pipeline
from ml.drawn_world.benchmark import BENCHMARK_SHA256, benchmark_scenes
from ml.grounding.features import FeatureSource
from ml.grounding.module import probabilities
from ml.images.leaks import find_overlap, small, thumbnails
from ml.images.overlays import IGNORED
from ml.pipeline.stages.synthetic_dataset import label_map, reject_reason
from ml.store.files import atomic
from ml.store.shards import split
from ml.studies import sizes
from ml.studies.modules import load_module
from ml.studies.picture_sets import generated
from ml.studies.records import Record
from ml.studies.segmenter_models import prompts_of
from ml.studies.specs import Spec
from ml.studies.study_run import StudyRun
from ml.studies.trainings import BATCH, recipe_of
from ml.words.vocabulary import load_vocabulary

LABELLER = Spec(vocabulary=sizes.ZERO_SHOT)

PART = 200  # pictures labelled in one task


def pictures_of(run: StudyRun, name: str) -> list[Record]:
    return generated(run, name, prompts_of(run, name))


def labelling(run: StudyRun, name: str) -> list[tuple[Path, str, list[int]]]:
    """The parts that a set's labels are kept in: file, recipe, places in the set.

    A file holds `maps` uint8 (seeds, pictures, H, W) in the vocabulary's numbers, 255 ignored, and
    `reasons` (seeds, pictures), "" for a picture to keep.
    """
    prompts, folder = prompts_of(run, name), run.folder / "labels"
    fixed = {
        "labeller": recipe_of(run, LABELLER),
        "synthetic": run.params.section("synthetic"),
        "benchmark": BENCHMARK_SHA256,
    }
    return [
        (
            folder / f"{name}-{i:03d}.npz",
            run.recipe(prompts=[prompts[k] for k in places], **fixed),
            list(places),
        )
        for i, places in enumerate(split(range(len(prompts)), PART))
    ]


def label_part(run: StudyRun, name: str, part: int) -> str:
    """Labels a part of a set with the modules of all seeds, on features computed once."""
    path, recipe, places = labelling(run, name)[part]
    everyone = pictures_of(run, name)
    records = [everyone[k] for k in places]
    pipe = load_pipeline(run.diffusion)
    modules = [load_module(run, LABELLER, seed) for seed in range(run.size.seeds)]
    benchmark = thumbnails(scene.image for scene in benchmark_scenes())
    copies = set(find_overlap([small(r.image) for r in records], benchmark))
    overlaps = [i in copies for i in range(len(records))]
    maps, reasons = label(records, overlaps, pipe, modules, run.params.synthetic)
    with run.making(path, recipe), atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, maps=maps, reasons=reasons)
    return f"{path.stem}: {(reasons == '').mean():.0%} kept"


@torch.inference_mode()
def label(records, overlaps, pipe, modules, synthetic) -> tuple[np.ndarray, np.ndarray]:
    """What each module makes of pictures, as the stage `synthetic_dataset` does.

    records: n pictures; overlaps: n bools, copies of benchmark pictures. Returns label maps uint8
    (modules, n, H, W) and reasons to reject (modules, n), "" for those to keep.
    """
    vocabulary = load_vocabulary(sizes.ZERO_SHOT)
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
