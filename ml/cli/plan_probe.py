"""Half a minute of the real work: what a picture, a step and a detection cost on this machine.

Runs the profile's own models through the code that the stages run, a few pictures and steps each;
nothing is kept and nothing is downloaded. What cannot be loaded is named, not guessed.
"""

import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ml.cli.plan_models import Found
from ml.cli.plan_needs import Figures
from ml.compute.batching import OutOfMemory
from ml.compute.devices import find_device
from ml.detectors import load_detector
from ml.diffusion.loading import load_pipeline
from ml.grounding.features import FeatureSource, sample_evidence
from ml.grounding.module import GroundingModule
from ml.grounding.pipeline import GroundedDiffusionPipeline
from ml.grounding.samples import Sample
from ml.grounding.training import train as train_grounding
from ml.grounding.training import validation_miou
from ml.images.png import decode_png
from ml.images.run_lengths import encode_rle
from ml.pipeline.samples import load_samples
from ml.pipeline.stages.grounding_model import config_for
from ml.pipeline.stages.images import ShardMaker
from ml.pipeline.workspace import Workspace
from ml.segmenters import architecture
from ml.segmenters.training import train as train_segmenter
from ml.settings.params import Params
from ml.store.schemas import IMAGES, TRIPLETS
from ml.store.shards import write_shards
from ml.words.prompts import make_prompts
from ml.words.vocabulary import Vocabulary

FEW, MORE = 2, 6
"""Denoising or optimizer steps of the two runs whose difference is the cost of a step."""
PATIENCE = 12.0
"""Seconds that the longer sampling may take; the batch is cut until it should."""
LOADING_ERRORS = (ValueError, OSError, ImportError)
"""What the loaders raise, in words, for a model that is missing, broken or not installed."""


@dataclass
class Probe:
    """What was measured, and what was not, and why."""

    device: str
    side: int  # of a picture
    figures: Figures = field(default_factory=Figures)
    picture_bytes: float | None = None  # PNG of a picture
    memory: dict[str, int] = field(default_factory=dict)  # stage -> peak bytes on the GPU
    missed: dict[str, str] = field(default_factory=dict)  # part -> why
    batch: int = 0  # pictures that were drawn at once
    seconds: float = 0.0


def run_probe(
    params: Params, vocabulary: Vocabulary, workspace: Workspace, models: Sequence[Found], side: int
) -> Probe:
    """Measures what can be loaded. A model that would have to be downloaded is left out. side: of
    the diffusion model's pictures."""
    started = time.perf_counter()
    device = find_device(params.diffusion.device, "diffusion.device")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    probe = Probe(f"{name}, {torch.get_num_threads()} CPU threads", side)
    parts: dict[str, Callable] = {
        "diffusion.model": _diffusion,
        "detector.model": _detector,
        "segmenter.backbone": _segmenter,
    }
    images = None
    for found in models:
        if found.state != "on this machine" and found.folder is None:
            probe.missed[found.setting] = f"{found.name} is not on this machine yet"
            continue
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # the trainings' progress bars
                made = parts[found.setting](params, vocabulary, workspace, probe, images)
        except LOADING_ERRORS as error:
            probe.missed[found.setting] = str(error)
        except OutOfMemory as error:
            probe.missed[found.setting] = str(error)
        else:
            images = made if images is None else images
        if device.type == "cuda":
            torch.cuda.empty_cache()
    probe.seconds = time.perf_counter() - started
    return probe


def _diffusion(params, vocabulary, workspace, probe: Probe, images) -> np.ndarray:
    """Sampling, grounding and the training of the grounding module. Returns pictures."""
    pipe = load_pipeline(workspace.located(params.diffusion))
    drawn = Draw(pipe, params, workspace, _prompts(params, vocabulary))
    fresh(pipe.device)
    probe.figures = replace(probe.figures, draw=drawn.seconds_a_picture())
    probe.batch = len(drawn.rows)
    note_memory(probe, "images", pipe.device)
    probe.picture_bytes = float(drawn.rows["image"].map(len).mean())
    fresh(pipe.device)
    with tempfile.TemporaryDirectory() as folder:
        samples = store_samples(drawn.rows, Workspace(Path(folder), "probe"))
        probe.figures = grounding_figures(pipe, samples, params, probe.figures)
    note_memory(probe, "grounding_model", pipe.device)
    return np.stack([decode_png(data) for data in drawn.rows["image"]])


def _detector(params, vocabulary, workspace, probe: Probe, images) -> None:
    settings = params.detector
    extra = {
        name: getattr(settings, name) for name in ("revision", "weights") if hasattr(settings, name)
    }
    model = workspace.detector(settings)
    detector = load_detector(
        settings.backend,
        model,
        batch_size=settings.batch_size,
        score_threshold=settings.score_threshold,
        **extra,
    )
    images = noise(probe.side) if images is None else images
    one = timed(lambda: detector.detect(images[:1]))
    size = settings.batch_size if one * settings.batch_size < PATIENCE else 1
    some = [images[i % len(images)] for i in range(size)]
    probe.figures = replace(probe.figures, detect=timed(lambda: detector.detect(some)) / len(some))


def _segmenter(params, vocabulary, workspace, probe: Probe, images) -> None:
    settings = params.segmenter
    model = architecture(settings.architecture).build(
        workspace.model(settings.backbone), ["background", *vocabulary.classes], settings
    )
    images = noise(probe.side) if images is None else images
    count = settings.batch_size + 1
    pictures = np.stack([images[i % len(images)] for i in range(count)])
    labels = np.stack([box_mask(pictures.shape[1], i) for i in range(count)]).astype(np.uint8)
    device = find_device()
    fresh(device)

    def steps(number: int, size: int) -> None:
        folder = Path(tempfile.mkdtemp())
        try:
            train_segmenter(
                model, pictures, labels, replace(settings, steps=number, batch_size=size), folder, 0
            )
        finally:
            shutil.rmtree(folder)

    probe.figures = replace(probe.figures, segmenter_step=step_seconds(steps, settings.batch_size))
    note_memory(probe, "segmenter", device)


class Draw:
    """Pictures made as the stage `images` makes a shard, which halves its batch if it must."""

    def __init__(self, pipe, params: Params, workspace: Workspace, prompts: list[dict]):
        self.pipe, self.params, self.workspace, self.prompts = pipe, params, workspace, prompts
        self.rows: pd.DataFrame | None = None

    def __call__(self, steps: int, batch: int) -> None:
        diffusion = replace(self.params.diffusion, steps=steps, batch_size=batch)
        maker = ShardMaker(replace(self.params, diffusion=diffusion), self.workspace)
        maker.pipe = self.pipe
        self.rows = maker(self.prompts[:batch])

    def seconds_a_picture(self) -> float:
        """At the profile's number of steps: the cost of a step, and what comes once."""
        one = timed(lambda: self(FEW, 1))
        if one < PATIENCE:  # a first run also starts the device and chooses kernels
            one = timed(lambda: self(FEW, 1))
        steps = self.params.diffusion.steps
        if one * MORE / FEW > PATIENCE:  # a large model on a CPU: this one run must do
            return one / FEW * steps
        most = int(PATIENCE * FEW / (one * MORE))
        batch = max(1, min(len(self.prompts), most))
        self(FEW, batch)
        few, more = timed(lambda: self(FEW, batch)), timed(lambda: self(MORE, batch))
        step = max(more - few, 0) / (MORE - FEW)
        return (max(few - FEW * step, 0) + steps * step) / batch


def grounding_figures(pipe, samples: list[Sample], params: Params, figures: Figures) -> Figures:
    """Evidence, features, a training step, a validation picture, and the finished module's use."""
    settings, count = params.grounding, len(samples)
    config = config_for(pipe, samples, settings, settings.variant)
    module = GroundingModule(config).to(pipe.device)
    evidence, found = None, {}
    if config.competition:
        started = time.perf_counter()
        evidence = sample_evidence(
            pipe, samples, config.evidence_timesteps, params.diffusion.batch_size
        )
        found["evidence"] = (time.perf_counter() - started) / count
    source = FeatureSource(pipe, samples, evidence)
    places, size = list(range(count)), min(count, settings.batch_size)
    cold = timed(lambda: [source.batch(places[i : i + size]) for i in range(0, count, size)])
    warm = timed(lambda: [source.batch(places[i : i + size]) for i in range(0, count, size)])
    found["features"] = max(cold - warm, 0) / count
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
    grounded = GroundedDiffusionPipeline(pipe, module, params.diffusion.batch_size)
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


def _prompts(params: Params, vocabulary: Vocabulary) -> list[dict]:
    """As many prompts of the profile's training sets as are drawn at once, two objects first."""
    size = params.diffusion.batch_size
    few = replace(
        params.prompts,
        train_one=size,
        train_two=size if len(vocabulary.seen) > 1 else 0,
        sim_per_cell=0,
        synthetic_one=0,
        synthetic_two=0,
    )
    return make_prompts(vocabulary, few, params.seed)[0][-size:]


def box_mask(side: int, place: int) -> np.ndarray:
    """bool (side,side), a box of a quarter of the picture that moves with `place`."""
    mask = np.zeros((side, side), bool)
    corner = (place % 4) * side // 8
    mask[corner : corner + side // 2, corner : corner + side // 2] = True
    return mask


def noise(side: int) -> np.ndarray:
    """Two pictures uint8 (2,side,side,3), where there is no diffusion model to draw any."""
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)


def timed(work: Callable[[], object]) -> float:
    """Seconds of a call, the device's work included."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def step_seconds(run: Callable[[int, int], object], batch: int) -> float:
    """Seconds of a training step, from a short and a longer run; what comes once cancels.

    run: trains for so many steps with batches of so many. Where that would take minutes (a large
    model on a CPU, whose time is proportional to the batch), one picture stands for the batch.
    """
    one = timed(lambda: run(1, 1))
    if one < PATIENCE:  # a first run also starts the device and chooses kernels
        one = timed(lambda: run(1, 1))
    if one > PATIENCE:
        return one * batch
    size = batch if one * batch < PATIENCE else 1
    few, more = timed(lambda: run(FEW, size)), timed(lambda: run(MORE, size))
    return max(more - few, 0) / (MORE - FEW) * batch / size


def fresh(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def note_memory(probe: Probe, stage: str, device: torch.device) -> None:
    """The peak since `fresh`, on a GPU."""
    if device.type == "cuda":
        probe.memory[stage] = torch.cuda.max_memory_reserved(device)
