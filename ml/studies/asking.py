"""Pictures asked for words of one's choice: what the modules are given, and what they answer.

The judged and the drawn pictures are asked for their own words by `trainings.score`; the studies
of absent words, of colours and of relations ask for others. U-Net work is done once for all
modules. Not here: which words are asked for, and scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from ml.baselines.daam import best_threshold, candidate_thresholds, strongest, threshold_masks
from ml.compute.batching import Batches
from ml.diffusion.features import denoiser_features
from ml.diffusion.pipeline import device_of
from ml.grounding.features import Batch, Words, collate, compute_evidence
from ml.grounding.module import GroundingModule, masks_from_logits, probabilities
from ml.studies.modules import load_module
from ml.studies.specs import Spec
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import training_set
from ml.studies.trainings import recipe_of

THRESHOLD_PICTURES = 200
"""Training pictures that the threshold of contrast alone is chosen on."""

PASSES = 64  # of the U-Net at once

OURS, UNSETTLED = "our module", "our module without settling"
PAPER, CONTRAST = "the paper's module", "contrast alone"
SPECS = {OURS: Spec(), UNSETTLED: Spec(settles=False), PAPER: Spec(variant="paper")}
"""Row label of a trained method -> its specification."""


@dataclass(frozen=True)
class Question:
    """A picture and the words that it is asked for."""

    image: np.ndarray  # uint8 (H,W,3)
    latent: np.ndarray  # float32 (C,h,w), at the feature timestep
    timestep: int
    shown: str  # prompt of the features
    text: str  # prompt of the evidence: all words stand in it
    words: tuple[str, ...]  # n
    phrases: tuple[str, ...]  # n, as they stand in `text`
    seed: int  # of the evidence's noise


@dataclass(frozen=True)
class Answer:
    masks: np.ndarray  # bool (n,H,W)
    probabilities: np.ndarray  # float32 (n,H,W) in 0..1


def contrast(pipe, questions: Sequence[Question], timesteps: Sequence[int]) -> list[np.ndarray]:
    """Leave-one-out contrast float32 (n_i,E,h,w) of each question."""
    return compute_evidence(
        pipe,
        [q.image for q in questions],
        [q.text for q in questions],
        [q.phrases for q in questions],
        timesteps,
        [q.seed for q in questions],
        Batches(PASSES),
    )


def look(
    pipe, words: Words, questions: Sequence[Question], evidence: Sequence[np.ndarray]
) -> Batch:
    """A module's inputs for the questions, all of one timestep; without any truth."""
    latents = torch.from_numpy(np.stack([q.latent for q in questions]))
    features = denoiser_features(pipe, latents, [q.shown for q in questions], questions[0].timestep)
    none = [np.zeros((len(q.words), 1, 1), bool) for q in questions]
    return collate(
        features,
        [words(q.words) for q in questions],
        evidence,
        none,
        [np.zeros(len(q.words), bool) for q in questions],
        device_of(pipe),
    )


@torch.no_grad()
def answer(module: GroundingModule, batch: Batch, questions: Sequence[Question]) -> list[Answer]:
    """A module's masks and probabilities for the words of each question."""
    logits = module(batch.features, batch.text, batch.valid, batch.evidence)
    masks = masks_from_logits(logits, module.config).cpu().numpy()
    soft = probabilities(logits, module.config).cpu().numpy()
    return [
        Answer(m[: len(q.words)], p[: len(q.words)])
        for q, m, p in zip(questions, masks, soft, strict=True)
    ]


def contrast_masks(
    evidence: Sequence[np.ndarray], questions: Sequence[Question], threshold: float
) -> list[np.ndarray]:
    """Contrast alone: bool (n_i,H,W), each place to its strongest word, above the threshold."""
    return [
        threshold_masks(own.mean(1), q.image.shape[:2], threshold, strongest)
        for own, q in zip(evidence, questions, strict=True)
    ]


def load_modules(run: StudyRun) -> dict[str, list[GroundingModule]]:
    """The trained modules of SPECS, of every seed."""
    return {
        name: [load_module(run, spec, seed) for seed in range(run.size.seeds)]
        for name, spec in SPECS.items()
    }


def modules_recipe(run: StudyRun) -> list[str]:
    """What the modules of SPECS are made from, for a recipe."""
    return [recipe_of(run, spec) for spec in SPECS.values()]


def contrast_threshold(run: StudyRun) -> float:
    """Contrast alone's best threshold on accepted masks of training pictures, seen classes."""

    def choose() -> pd.DataFrame:
        own = training_set(run, Spec(pictures=THRESHOLD_PICTURES))
        best, miou = best_threshold(
            own,
            [r.evidence.mean(1) for r in own],
            candidate_thresholds(run.params.benchmark.daam_thresholds),
            strongest,
        )
        return pd.DataFrame([{"threshold": best, "miou": miou}])

    recipe = run.recipe(
        threshold_of="contrast",
        pictures=THRESHOLD_PICTURES,
        size=run.size.name,
        prompts=run.params.section("prompts"),
        seed=run.params.seed,
    )
    return float(run.table("contrast_threshold", recipe, choose).threshold[0])
