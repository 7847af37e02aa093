"""Study 6's contact sheet: generated pictures of two objects of one class."""

from pathlib import Path

from ml.diffusion.loading import load_pipeline
from ml.diffusion.sampling import sample
from ml.grounding.features import Words
from ml.images.contact_sheet import contact_sheet
from ml.studies.asking import Question, answer, contrast, look
from ml.studies.modules import load_module
from ml.studies.relation_scenes import GENERATED_SEEDS, colour_scene
from ml.studies.specs import Spec
from ml.studies.study_run import StudyRun
from ml.words.phrases import phrase

SHOWN = 12  # pictures of the contact sheet


def sheet_path(run: StudyRun) -> Path:
    return run.folder / "raw" / "beyond_nouns.jpg"


def draw_sheet(run: StudyRun, path: Path) -> None:
    """Generated pictures of two of one class with our masks, for the eye: no truth is known."""
    pipe, diffusion = load_pipeline(run.diffusion), run.params.diffusion
    scenes = [colour_scene(i) for i in range(SHOWN)]
    texts, words = [s.text for s in scenes], [s.words for s in scenes]
    seeds = [GENERATED_SEEDS + i for i in range(SHOWN)]
    made = sample(
        pipe, texts, seeds, steps=diffusion.steps, guidance_scale=diffusion.guidance_scale
    )
    questions = [
        Question(
            image,
            latent.numpy(),
            made.timestep,
            text,
            text,
            own,
            tuple(phrase(word) for word in own),
            seed,
        )
        for image, latent, text, own, seed in zip(
            made.images, made.latents, texts, words, seeds, strict=True
        )
    ]
    maps = contrast(pipe, questions, run.params.grounding.evidence_timesteps)
    found = answer(load_module(run, Spec(), 0), look(pipe, Words(pipe), questions, maps), questions)
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(
        made.images, [a.masks for a in found], [" + ".join(w) for w in words], path, columns=6
    )
