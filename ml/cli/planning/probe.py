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
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ml.cli.planning.hours import Figures
from ml.cli.planning.models import Found
from ml.cli.planning.placeholders import box_mask, noise
from ml.cli.planning.probe_drawing import Draw, probe_prompts
from ml.cli.planning.probe_grounding import grounding_figures, store_samples
from ml.cli.planning.timing import PATIENCE, fresh, step_seconds, timed
from ml.compute.batching import NoRoom, attempt, free_memory
from ml.compute.devices import find_device
from ml.detectors import load_detector
from ml.diffusion.loading import load_pipeline
from ml.diffusion.pipeline import device_of
from ml.errors import OutOfMemory
from ml.images.png import decode_png
from ml.pipeline.workspace import Workspace
from ml.segmenters import architecture
from ml.segmenters.training import train as train_segmenter
from ml.settings.params import Params
from ml.words.vocabulary import Vocabulary

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
    parts: dict[str, Callable[..., np.ndarray | None]] = {
        "diffusion.model": probe_diffusion,
        "detector.model": probe_detector,
        "segmenter.backbone": probe_segmenter,
    }
    images = None
    for found in models:
        if found.state != "on this machine" and found.folder is None:
            probe.missed[found.setting] = f"{found.name} is not on this machine yet"
            continue
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # the trainings' progress bars
                measure = partial(
                    parts[found.setting], params, vocabulary, workspace, probe, images
                )
                made = attempt(measure)  # weights that do not fit come as torch's own error
        except (*LOADING_ERRORS, OutOfMemory) as error:
            probe.missed[found.setting] = str(error)
        else:
            if isinstance(made, NoRoom):
                probe.missed[found.setting] = made.why
            elif images is None:
                images = made
        free_memory()  # else the next part's peak has this one's weights in it
    probe.seconds = time.perf_counter() - started
    return probe


def probe_diffusion(
    params: Params,
    vocabulary: Vocabulary,
    workspace: Workspace,
    probe: Probe,
    images: np.ndarray | None,
) -> np.ndarray:
    """Sampling, grounding and the training of the grounding module. Returns pictures."""
    pipe = load_pipeline(workspace.located(params.diffusion))
    drawn = Draw(pipe, params, workspace, probe_prompts(params, vocabulary))
    fresh(device_of(pipe))
    probe.figures = replace(probe.figures, draw=drawn.seconds_a_picture())
    probe.batch = len(drawn.rows)
    note_memory(probe, "images", device_of(pipe))
    probe.picture_bytes = float(drawn.rows["image"].map(len).mean())
    fresh(device_of(pipe))
    with tempfile.TemporaryDirectory() as folder:
        samples = store_samples(drawn.rows, Workspace(Path(folder), "probe"))
        probe.figures = grounding_figures(pipe, samples, params, probe.figures)
    note_memory(probe, "grounding_model", device_of(pipe))
    return np.stack([decode_png(data) for data in drawn.rows["image"]])


def probe_detector(
    params: Params,
    vocabulary: Vocabulary,
    workspace: Workspace,
    probe: Probe,
    images: np.ndarray | None,
) -> None:
    """Detection, with the batch cut to what should take PATIENCE seconds."""
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


def probe_segmenter(
    params: Params,
    vocabulary: Vocabulary,
    workspace: Workspace,
    probe: Probe,
    images: np.ndarray | None,
) -> None:
    """A training step of the segmenter, its labels boxes."""
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


def note_memory(probe: Probe, stage: str, device: torch.device) -> None:
    """The peak since `fresh`, on a GPU."""
    if device.type == "cuda":
        probe.memory[stage] = torch.cuda.max_memory_reserved(device)
