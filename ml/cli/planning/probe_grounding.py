"""The probe trains and uses a grounding module on a few drawn pictures, and times it."""

import time
from dataclasses import replace

import pandas as pd

from ml.cli.planning.hours import Figures
from ml.cli.planning.placeholders import box_mask
from ml.cli.planning.timing import steady, step_seconds, timed
from ml.diffusion.pipeline import device_of
from ml.grounding.engine import GroundingEngine
from ml.grounding.features import FeatureSource, sample_evidence
from ml.grounding.module import GroundingModule
from ml.grounding.samples import Sample
from ml.grounding.training import train as train_grounding
from ml.grounding.validation import validation_miou
from ml.images.run_lengths import encode_rle
from ml.pipeline.samples import load_samples
from ml.pipeline.stages.grounding_model import config_for
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.making import write_shards
from ml.store.schemas import IMAGES, TRIPLETS


def grounding_figures(pipe, samples: list[Sample], params: Params, figures: Figures) -> Figures:
    """Evidence, features, a training step, a validation picture, and the finished module's use."""
    settings, count = params.grounding, len(samples)
    config = config_for(pipe, samples, settings, settings.variant)
    module = GroundingModule(config).to(device_of(pipe))
    evidence, found = None, {}
    if config.competition:
        started = time.perf_counter()
        evidence = sample_evidence(
            pipe, samples, config.evidence_timesteps, params.diffusion.batch_size
        )
        found["evidence"] = (time.perf_counter() - started) / count
    source = FeatureSource(pipe, samples, evidence)
    places, size = list(range(count)), min(count, settings.batch_size)
    bare = FeatureSource(pipe, samples, evidence, cache_bytes=0)

    def through(given: FeatureSource) -> None:
        for start in range(0, count, size):
            given.batch(places[start : start + size])

    # Without the copies that keeping makes: at full size next to none of the pictures is kept.
    cold = steady(lambda: through(bare))
    through(source)
    found["features"] = max(cold - timed(lambda: through(source)), 0) / count
    entities = [sample.entities for sample in samples]

    def steps(number: int, size: int) -> None:
        train_grounding(
            module,
            source,
            source,
            entities,
            replace(
                settings, steps=number, evaluate_every=number, patience=number, batch_size=size
            ),
            0,
        )

    found["grounding_step"] = step_seconds(steps, settings.batch_size)
    found["validate"] = (
        timed(lambda: validation_miou(module, source, entities, settings.batch_size)) / count
    )
    grounded = GroundingEngine(pipe, module, params.diffusion.batch_size)
    part = samples[: params.diffusion.batch_size]
    found["ground"] = timed(lambda: grounded.ground_samples(part)) / len(part)
    return replace(figures, **found)


def store_samples(rows: pd.DataFrame, workspace: Workspace) -> list[Sample]:
    """Training samples of drawn pictures, read from shards as the stages read them; each word's
    mask is a box. rows: of the stage `images`."""
    triplets = [
        {
            "key": row.key,
            "text": row.text,
            "entity": entity,
            "word": word,
            "phrase": phrase,
            "purpose": row.purpose,
            "cell": row.cell,
            "subset": "train",
            "accepted": True,
            "reason": "",
            "score": 1.0,
            "area": 0.25,
            "std": row.std,
            "dhash": row.dhash,
            "rle": encode_rle(box_mask(row.width, place)),
        }
        for row in rows.itertuples()
        for place, (entity, word, phrase) in enumerate(
            zip(row.entities, row.words, row.phrases, strict=True)
        )
    ]
    for stage, frame, schema in (
        ("images", rows, IMAGES),
        ("triplets", pd.DataFrame(triplets), TRIPLETS),
    ):
        write_shards(workspace.folder(stage), "probe", [frame], lambda group: group, schema)
    return load_samples(workspace, ["train"])
