"""How pictures of the studies are made, generated or drawn, with all that is kept of them.

Makers turn requests into the rows of a shard, in processes of their own.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from ml.compute.batching import Batches
from ml.diffusion.inversion import invert
from ml.diffusion.latents import add_noise, encode_images
from ml.diffusion.loading import load_pipeline
from ml.diffusion.sampling import sample
from ml.drawn_world.world import draw_scene, scene_seed
from ml.grounding.features import compute_evidence
from ml.grounding.prompting import compose_prompt
from ml.images.facts import grey_levels
from ml.images.png import encode_png
from ml.images.run_lengths import encode_rle
from ml.pipeline.stages.masks import mask_rows, open_detector
from ml.pipeline.stages.triplets import judge
from ml.studies.prompt_sets import all_classes, word_of
from ml.studies.records import GENERATED, INVERTED, NOISED
from ml.studies.study_run import StudyRun
from ml.words.phrases import phrase


def evidence_timesteps(run: StudyRun) -> list[int]:
    """Timesteps, 0..999, at which the leave-one-out contrast is taken."""
    return run.params.grounding.evidence_timesteps


class Maker:
    """Turns requests into the rows of a shard, by batches; a subclass gives `rows`. Travels to
    processes; the model is loaded there."""

    def __init__(self, run: StudyRun) -> None:
        self.run = run

    @cached_property
    def pipe(self):
        torch.set_num_threads(max(1, torch.get_num_threads() // self.run.workers))
        return load_pipeline(self.run.workspace.located(self.run.params.diffusion))

    def __call__(self, asked: Sequence[dict]) -> pd.DataFrame:
        batches = Batches(self.run.params.diffusion.batch_size)
        return pd.DataFrame([row for _, rows in batches.run(asked, self.rows) for row in rows])

    def rows(self, asked: Sequence[dict]) -> list[dict]:
        raise NotImplementedError


class _PictureMaker(Maker):
    """What both kinds of picture sets need: the detector, and all that is kept of a picture."""

    @cached_property
    def detector(self):
        return open_detector(self.run.params, self.run.workspace)

    def finish(self, rows: list[dict], images: np.ndarray, latents: list, daam: list) -> list[dict]:
        """Adds picture, latents [(source, timestep, float32 (B,C,h,w))], maps and masks."""
        maps = compute_evidence(
            self.pipe,
            images,
            [r["text"] for r in rows],
            [r["phrases"] for r in rows],
            evidence_timesteps(self.run),
            [r["seed"] for r in rows],
            Batches(self.run.params.diffusion.batch_size),
        )
        found = self.detector.detect(list(images), list(all_classes().classes))
        for i, row in enumerate(rows):
            own = np.stack([every[i] for _, _, every in latents]).astype("<f2")
            row |= {
                "image": encode_png(images[i]),
                "size": list(images[i].shape[:2]),
                "latents": own.tobytes(),
                "latents_shape": list(own.shape),
                "sources": [source for source, _, _ in latents],
                "timesteps": [timestep for _, timestep, _ in latents],
                "daam": np.asarray(daam[i]).astype("<f2").tobytes(),
                "evidence": maps[i].astype("<f2").tobytes(),
                "rles": self._accepted(row, images[i], found[i]),
            }
        return rows

    def _accepted(self, row: dict, image: np.ndarray, found) -> list[str]:
        """The detector's masks that the stage `triplets` would accept, "" for the others."""
        prompt = pd.Series(row | {"purpose": "train", "cell": ""})
        rows = pd.DataFrame(mask_rows(prompt, found, "oracle", image.shape[:2]))
        rows["std"] = float(grey_levels(image).std())
        reasons = judge(rows, {}, self.run.params.triplets)
        return [rle if not reason else "" for rle, reason in zip(rows.rle, reasons, strict=True)]


class GeneratedMaker(_PictureMaker):
    def __init__(self, run: StudyRun, keep: tuple[int, ...]) -> None:
        super().__init__(run)
        self.keep = keep

    def rows(self, prompts: Sequence[dict]) -> list[dict]:
        diffusion = self.run.params.diffusion
        made = sample(
            self.pipe,
            [p["text"] for p in prompts],
            [p["seed"] for p in prompts],
            steps=diffusion.steps,
            guidance_scale=diffusion.guidance_scale,
            words=[p["words"] for p in prompts],
            keep=self.keep,
        )
        latents = [(GENERATED, *made.earlier[step]) for step in self.keep]
        rows = [
            {k: p[k] for k in ("key", "text", "entities", "words", "phrases", "seed")}
            | {"truth": [""] * len(p["words"])}
            for p in prompts
        ]
        return self.finish(rows, made.images, latents, made.daam)


class DrawnMaker(_PictureMaker):
    def rows(self, asked: Sequence[dict]) -> list[dict]:
        scenes = [
            draw_scene(scene_seed("paper", own["index"]), classes=own["classes"]) for own in asked
        ]
        rows = []
        for own, scene in zip(asked, scenes, strict=True):
            words = [word_of(name) for name in scene.classes]
            rows.append(
                {
                    "key": own["key"],
                    "text": compose_prompt(words),
                    "words": words,
                    "entities": list(scene.classes),
                    "seed": scene.seed,
                    "phrases": [phrase(word) for word in words],
                    "truth": [encode_rle(mask) for mask in scene.masks],
                }
            )
        images = np.stack([scene.image for scene in scenes])
        clean, timestep = encode_images(self.pipe, images), feature_timestep(self.pipe, self.run)
        latents = [
            (NOISED, timestep, add_noise(self.pipe, clean, timestep, [r["seed"] for r in rows])),
            (INVERTED, timestep, invert(self.pipe, clean, [r["text"] for r in rows], timestep)),
        ]
        none = [np.zeros((len(r["words"]), 0)) for r in rows]
        return self.finish(rows, images, [(s, t, x.cpu().numpy()) for s, t, x in latents], none)


def feature_timestep(pipe, run: StudyRun) -> int:
    """Of the last denoising step, 0..999: what the generated pictures' features are taken at."""
    pipe.scheduler.set_timesteps(run.params.diffusion.steps)
    return round(float(pipe.scheduler.timesteps[-1]))
