"""One lesson: a grounding model opened, taught, judged before and after, and written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ml.cli.teaching.pictures import Shown, held_out, read_pictures
from ml.datasets.photos import PhotoFiles
from ml.errors import shown
from ml.grounding.learning import usual_steps
from ml.grounding.opening import Opened, open_model
from ml.grounding.pipeline import GroundedDiffusionPipeline
from ml.grounding.teaching import score, teach
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.files import atomic, say, write_json
from ml.words.vocabulary import Vocabulary

FACTS = "teaching.json"
"""Beside `pipeline.json`: what was taught, how, and the scores."""


def taken(out: Path) -> str:
    """What is said of a place where something stands."""
    return f"--out: {out} is there already; name a new folder, or move it away"


@dataclass(frozen=True)
class Lesson:
    """What the command line asks for."""

    model: Path
    what: str  # of `ml.grounding.learning.WAYS`
    steps: int | None
    seed: int
    out: Path


def give_lesson(
    lesson: Lesson,
    photos: PhotoFiles,
    vocabulary: Vocabulary,
    params: Params,
    workspace: Workspace,
) -> None:
    """Writes `lesson.out`, whole or not at all, and prints what was taught and the scores.

    Raises ValueError for a model that cannot be opened, and for pictures or words that cannot
    teach.
    """
    model = open_model(lesson.model, params.diffusion.device)
    before = GroundedDiffusionPipeline(
        model.pipe, model.module, model.batch_size, model.steps, model.guidance_scale, model.queries
    )
    side = before.config.picture_size
    pictures, left_out = read_pictures(photos, vocabulary, side, params, workspace)
    for reason, count in left_out.items():
        print(f"left out: {count} masks, {reason}")
    shows, judges = held_out(pictures, lesson.seed)
    images, masks, ignored = _arrays(shows)
    after = teach(
        before, images, masks, lesson.what, steps=lesson.steps, seed=lesson.seed, ignored=ignored
    )
    print(
        shown(f"taught: {', '.join(vocabulary.labelled)}, the {lesson.what}, {len(shows)} pictures")
    )
    facts = {
        "what": lesson.what,
        "steps": lesson.steps or usual_steps(lesson.what, len(shows)),
        "seed": lesson.seed,
        "words": list(vocabulary.labelled),
        "pictures": [picture.name for picture in shows],
        "held_out": [picture.name for picture in judges],
        "left_out": left_out,
    }
    facts |= _scores(before, after, judges or shows, bool(judges))
    _write(lesson.out, after, model, facts)


def _arrays(pictures: Sequence[Shown]) -> tuple[list[Any], list[Any], list[Any]]:
    """Images, masks and ignored pixels."""
    return [p.image for p in pictures], [p.masks for p in pictures], [p.ignored for p in pictures]


def _scores(
    before: GroundedDiffusionPipeline,
    after: GroundedDiffusionPipeline,
    pictures: Sequence[Shown],
    fair: bool,
) -> dict[str, Any]:
    """mIoU of each word before and after, printed. fair: the pictures taught nothing."""
    where = f"{len(pictures)} held-out pictures (a fifth, chosen by the seed, that taught nothing)"
    if not fair:
        where = (
            f"the {len(pictures)} pictures that taught it: too few to hold any out, so this says "
            "whether it learned them, and nothing more"
        )
    first, second = score(before, *_arrays(pictures)), score(after, *_arrays(pictures))
    print(f"mIoU on {where}")
    for word in first:
        print(shown(f"  {word}: {first[word]:.1f} before, {second[word]:.1f} after"))
    means = [float(np.mean(list(scores.values()))) for scores in (first, second)]
    print(f"  mean: {means[0]:.1f} before, {means[1]:.1f} after")
    if worse := [word for word in first if second[word] < first[word]]:
        say(
            f"worse than before: {', '.join(worse)}. Go on with the model that was there, try the "
            "other --what, or label more pictures"
        )
    return {"miou_before": first, "miou_after": second}


def _write(out: Path, taught: GroundedDiffusionPipeline, model: Opened, facts: dict) -> None:
    """A folder that opens; a diffusion model of the hub stays a reference. Raises ValueError when
    another command has written there meanwhile."""
    with atomic(out, taken=taken(out)) as temporary:
        taught.save_pretrained(temporary, *(model.hub or (None, None, None)))
        write_json(temporary / FACTS, facts)
