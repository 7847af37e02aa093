"""The pictures that the studies share: generated ones, and drawn scenes whose truth is known.

A row holds what every study needs of a picture and is made once: latents of several timesteps,
DAAM's maps, leave-one-out contrast, the detector's masks and, of a drawn scene, the true ones.
U-Net features are computed again from the latents.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from ml.compute.batching import Batches
from ml.diffusion.evidence import add_noise, encode_images
from ml.diffusion.inversion import invert
from ml.diffusion.loading import load_pipeline
from ml.diffusion.sampling import sample
from ml.drawn_world.world import draw_scene, scene_seed
from ml.grounding.features import compute_evidence
from ml.grounding.prompting import compose_prompt
from ml.grounding.samples import Sample
from ml.images.facts import grey_levels
from ml.images.png import encode_png
from ml.images.run_lengths import decode_rle, encode_rle
from ml.images.stored import Pictures
from ml.pipeline.stages.masks import mask_rows, open_detector
from ml.pipeline.stages.triplets import judge
from ml.store.shards import split, write_shards
from ml.studies.design import FRACTIONS, everything, word_of
from ml.studies.workspace import Lab
from ml.words.phrases import phrase

GENERATED, NOISED, INVERTED = "generated", "noised", "inverted"
"""Where a latent comes from: the sampling run, a drawn scene with noise, or DDIM inversion."""

_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.string()),
        ("entities", pa.list_(pa.string())),
        ("words", pa.list_(pa.string())),
        ("phrases", pa.list_(pa.string())),
        ("seed", pa.int64()),
        ("image", pa.binary()),
        ("size", pa.list_(pa.int64())),  # (H,W)
        ("latents", pa.binary()),
        ("latents_shape", pa.list_(pa.int64())),  # float16 (K,C,h,w)
        ("sources", pa.list_(pa.string())),
        ("timesteps", pa.list_(pa.int64())),  # K of each
        ("daam", pa.binary()),
        ("evidence", pa.binary()),  # float16 (n,h,w) and (n,E,h,w)
        ("rles", pa.list_(pa.string())),
        ("truth", pa.list_(pa.string())),  # "" where there is none
    ]
)


@dataclass(frozen=True)
class Record(Sample):
    """A picture of the studies. `masks` and `present` are the detector's, as in Protocol I."""

    latents: np.ndarray  # float32 (K,C,h,w)
    sources: tuple[str, ...]  # K of GENERATED, NOISED, INVERTED
    timesteps: tuple[int, ...]  # K
    evidence: np.ndarray  # float32 (n,E,h,w)
    truth_rles: tuple[str, ...]  # n, "" in generated pictures
    place: int  # which of the K it is seen at

    @property
    def truth(self) -> np.ndarray:
        """bool (n,H,W), exact."""
        return np.stack([decode_rle(rle) for rle in self.truth_rles])

    @property
    def whole(self) -> bool:
        """The detector's masks of all words were accepted: Protocol I judges no other picture."""
        return all(self.rles)

    def at(self, place: int) -> "Record":
        """The same picture, seen at the place-th of its latents."""
        return replace(
            self, latent=self.latents[place], timestep=self.timesteps[place], place=place
        )

    @property
    def source(self) -> str:
        """Where the latent that it is seen at comes from."""
        return self.sources[self.place]

    @property
    def real(self) -> bool:
        """A drawn scene, whose truth is known."""
        return any(self.truth_rles)

    def by_truth(self) -> "Record":
        """The same picture with the exact masks in place of the detector's."""
        return replace(self, rles=self.truth_rles)


def generated(lab: Lab, name: str, prompts: Sequence[dict], keep: Sequence[float] = ()) -> list:
    """The set's pictures, made where they are not. keep: shares of the denoising steps from the
    last, of whose inputs the latents are kept (`plan.FRACTIONS`); the last one's always are."""
    steps = lab.params.diffusion.steps
    kept = sorted({max(1, round(share * steps)) for share in (*keep, FRACTIONS[0])})
    recipe = lab.recipe(prompts=list(prompts), keep=kept, evidence=_timesteps(lab))
    return _made(lab, name, list(prompts), _Generated(lab, tuple(kept)), recipe)


def drawn(lab: Lab, name: str, classes: Sequence[tuple[str, ...]], start: int) -> list:
    """The set's drawn scenes, made where they are not. start: of their seeds in "paper"."""
    asked = [
        {"key": f"{name}-{i:06d}", "classes": list(own), "index": start + i}
        for i, own in enumerate(classes)
    ]
    recipe = lab.recipe(scenes=asked, evidence=_timesteps(lab))
    return _made(lab, name, asked, _Drawn(lab), recipe)


def _timesteps(lab: Lab) -> list[int]:
    return lab.params.grounding.evidence_timesteps


def _made(lab: Lab, name: str, asked: list, make, recipe: str) -> list[Record]:
    folder = lab.folder / "pictures" / name
    plan = split(asked, lab.size.shard)
    shards = write_shards(folder, recipe, plan, make, _SCHEMA, lab.workers)
    pictures, columns = Pictures(), [column for column in _SCHEMA.names if column != "image"]
    return [
        _record(row, name, folder / shard, pictures)
        for shard in shards
        for row in pd.read_parquet(folder / shard, columns=columns).itertuples()
    ]


class Maker:
    """Turns what is asked for into the rows of a shard, by batches: a kind gives `rows`. Travels to
    processes; the model is loaded there."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @cached_property
    def pipe(self):
        torch.set_num_threads(max(1, torch.get_num_threads() // self.lab.workers))
        return load_pipeline(self.lab.workspace.located(self.lab.params.diffusion))

    def __call__(self, asked: Sequence[dict]) -> pd.DataFrame:
        batches = Batches(self.lab.params.diffusion.batch_size)
        return pd.DataFrame([row for _, rows in batches.run(asked, self.rows) for row in rows])

    def rows(self, asked: Sequence[dict]) -> list[dict]:
        raise NotImplementedError


class _PictureMaker(Maker):
    """What both kinds of picture sets need: the detector, and all that is kept of a picture."""

    @cached_property
    def detector(self):
        return open_detector(self.lab.params, self.lab.workspace)

    def finish(self, rows: list[dict], images: np.ndarray, latents: list, daam: list) -> list[dict]:
        """Adds picture, latents [(source, timestep, float32 (B,C,h,w))], maps and masks."""
        maps = compute_evidence(
            self.pipe,
            images,
            [r["text"] for r in rows],
            [r["phrases"] for r in rows],
            _timesteps(self.lab),
            [r["seed"] for r in rows],
            Batches(self.lab.params.diffusion.batch_size),
        )
        found = self.detector.detect(list(images), list(everything().classes))
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
        reasons = judge(rows, {}, self.lab.params.triplets)
        return [rle if not reason else "" for rle, reason in zip(rows.rle, reasons, strict=True)]


class _Generated(_PictureMaker):
    def __init__(self, lab: Lab, keep: tuple[int, ...]) -> None:
        super().__init__(lab)
        self.keep = keep

    def rows(self, prompts: Sequence[dict]) -> list[dict]:
        diffusion = self.lab.params.diffusion
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


class _Drawn(_PictureMaker):
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
        clean, timestep = encode_images(self.pipe, images), feature_timestep(self.pipe, self.lab)
        latents = [
            (NOISED, timestep, add_noise(self.pipe, clean, timestep, [r["seed"] for r in rows])),
            (INVERTED, timestep, invert(self.pipe, clean, [r["text"] for r in rows], timestep)),
        ]
        none = [np.zeros((len(r["words"]), 0)) for r in rows]
        return self.finish(rows, images, [(s, t, x.cpu().numpy()) for s, t, x in latents], none)


def feature_timestep(pipe, lab: Lab) -> int:
    """Of the last denoising step, 0..999: what the generated pictures' features are taken at."""
    pipe.scheduler.set_timesteps(lab.params.diffusion.steps)
    return round(float(pipe.scheduler.timesteps[-1]))


def _record(row, name: str, shard: Path, pictures: Pictures) -> Record:
    shape, n = tuple(row.latents_shape), len(row.entities)
    latents, maps, daam = (
        np.frombuffer(data, "<f2").astype(np.float32)
        for data in (row.latents, row.evidence, row.daam)
    )
    latents = latents.reshape(shape)
    return Record(
        key=row.key,
        text=row.text,
        entities=tuple(row.entities),
        words=tuple(row.words),
        phrases=tuple(row.phrases),
        cell="",
        subset=name,
        seed=int(row.seed),
        size=tuple(int(side) for side in row.size),
        shard=shard,
        row=row.Index,
        pictures=pictures,
        latent=latents[0],
        timestep=int(row.timesteps[0]),
        rles=tuple(row.rles),
        daam=daam.reshape(n, *shape[2:]) if daam.size else np.zeros((n, *shape[2:]), np.float32),
        latents=latents,
        sources=tuple(row.sources),
        timesteps=tuple(map(int, row.timesteps)),
        evidence=maps.reshape(n, -1, *shape[2:]),
        truth_rles=tuple(row.truth),
        place=0,
    )
