"""Study 6's raw rows: what every method finds for the words of the drawn scenes."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from ml.diffusion.latents import add_noise, encode_images
from ml.diffusion.loading import load_pipeline
from ml.grounding.features import Words
from ml.metrics.iou import binary_iou
from ml.studies.asking import (
    CONTRAST,
    Question,
    answer,
    contrast,
    contrast_masks,
    load_modules,
    look,
    modules_recipe,
)
from ml.studies.picture_makers import feature_timestep
from ml.studies.relation_scenes import Asked, colour_scene, relation_scenes
from ml.studies.study_run import StudyRun
from ml.words.phrases import phrase

PART = 40  # scenes that a process asks at once


def score_rows(asked: Asked, masks: np.ndarray, common: dict) -> list[dict]:
    """One row a scored word: IoU with the object it names and with the other one, and `right`, 1
    where the first is the higher, 1/2 where they are equal (no mask on either). masks: bool
    (n,H,W), one a word."""
    rows = []
    for word, own, other in zip(asked.scored, asked.named, asked.other, strict=True):
        named, wrong = (binary_iou(masks[word], asked.scene.masks[i]) for i in (own, other))
        rows.append(
            common
            | {
                "kind": asked.kind,
                "key": str(asked.scene.seed),
                "entity": asked.scene.classes[own],
                "named": named,
                "other": wrong,
                "right": (1 + np.sign(named - wrong)) / 2,
            }
        )
    return rows


def parts(run: StudyRun) -> range:
    """Numbers of the parts that the scenes are asked in."""
    return range(-(-run.size.same_class // PART))


def make_part(run: StudyRun, number: int, threshold: float) -> str:
    """A task for `run_tasks`. threshold: of contrast alone."""
    raw_part(run, number, threshold)
    return f"part {number}"


def raw_part(run: StudyRun, number: int, threshold: float | None = None) -> pd.DataFrame:
    """The rows of a part, made if missing and a threshold is given, else ValueError."""

    def ask() -> pd.DataFrame:
        if threshold is None:
            raise ValueError("the study beyond nouns was not made: run `python -m ml.studies`")
        chosen = range(run.size.same_class)[number * PART : (number + 1) * PART]
        asked = [colour_scene(i) for i in chosen]
        asked += [one for i in chosen for one in relation_scenes(i)]
        return pd.DataFrame(_ask(run, asked, threshold))

    return run.table(f"beyond_nouns-{number:02d}", part_recipe(run, number), ask)


def part_recipe(run: StudyRun, part: int | str) -> str:
    return run.recipe(
        study="beyond_nouns",
        part=part,
        counts=run.counts("same_class"),
        modules=modules_recipe(run),
    )


def _ask(run: StudyRun, asked: Sequence[Asked], threshold: float) -> Iterator[dict]:
    pipe = load_pipeline(run.diffusion)
    words, timestep = Words(pipe), feature_timestep(pipe, run)
    modules = load_modules(run)
    for start in range(0, len(asked), PART):
        part = asked[start : start + PART]
        questions = _questions(pipe, part, timestep)
        maps = contrast(pipe, questions, run.params.grounding.evidence_timesteps)
        batch = look(pipe, words, questions, maps)
        found = {
            (name, seed): [a.masks for a in answer(module, batch, questions)]
            for name, own in modules.items()
            for seed, module in enumerate(own)
        }
        found[CONTRAST, 0] = contrast_masks(maps, questions, threshold)
        for (method, seed), masks in found.items():
            for one, own in zip(part, masks, strict=True):
                yield from score_rows(one, own, {"method": method, "seed": seed})


def _questions(pipe, asked: Sequence[Asked], timestep: int) -> list[Question]:
    images, seeds = np.stack([a.scene.image for a in asked]), [a.scene.seed for a in asked]
    latents = add_noise(pipe, encode_images(pipe, images), timestep, seeds).cpu().numpy()
    return [
        Question(
            a.scene.image,
            latent,
            timestep,
            a.text,
            a.text,
            a.words,
            tuple(phrase(word) for word in a.words),
            a.scene.seed,
        )
        for a, latent in zip(asked, latents, strict=True)
    ]
