"""What a few pictures of one's own, with masks, add to the detector's: Protocol I before and after.

    python -m benchmarks.own_labels [--profile micro] [--counts 0 5 20 100] [--seeds 3]
                                    [--pictures 120] [--steps 150] [--sim 150]

Wants the stages up to `triplets` finished. The own pictures are drawn scenes with exact masks, of a
seen word and a held-out one each, and take the way of `triplets.labels`: a plain folder, the
filter, the VAE. For them the held-out words are `labelled:`, so that these masks alone teach them.
Trained is on so many of the generated training pictures (--pictures) and of the own ones, for
fewer steps than a run has; scored is on pictures of the profile's sim set (--sim), on the words
that are seen and on those that were held out. Nothing is written but what --output names.
"""

import argparse
import dataclasses
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from ml.arguments import add_profile, add_root, number
from ml.diffusion.loading import load_pipeline
from ml.drawn_world.world import draw_scene, scene_seed
from ml.errors import exit_path
from ml.grounding.features import Batch, FeatureSource, sample_evidence
from ml.grounding.module import GroundingModule
from ml.grounding.samples import Sample
from ml.grounding.training import train
from ml.grounding.validation import predict_masks
from ml.images.contact_sheet import spread
from ml.pipeline.labelled import write_labelled
from ml.pipeline.labelled_rows import labelled_shards, own_rles, own_triplets
from ml.pipeline.labelled_samples import labelled_samples
from ml.pipeline.samples import load_samples
from ml.pipeline.stages.grounding_model import config_for
from ml.pipeline.stages.grounding_scores import protocol_one, score_rows
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import load_params
from ml.store.files import write_json
from ml.store.making import write_shards
from ml.store.schemas import TRIPLETS
from ml.store.shards import read_shards
from ml.store.sidecars import OWN, shard_files
from ml.words.cells import CELLS
from ml.words.vocabulary import Vocabulary, load_vocabulary

START = 500_000
"""Of the own scenes' seeds in "paper", which no other set has."""
VALIDATION = 20
"""Pictures that the training looks at once, at its end: nothing is chosen by them."""


class Part:
    """Some of a source's samples, as a source."""

    def __init__(self, source: FeatureSource, places: Sequence[int]) -> None:
        self.source, self.places = source, list(places)

    def __len__(self) -> int:
        return len(self.places)

    def counts(self, index: int) -> tuple[int, int]:
        return self.source.counts(self.places[index])

    def batch(self, indices: Sequence[int]) -> Batch:
        return self.source.batch([self.places[i] for i in indices])


def write_own(folder: Path, vocabulary: Vocabulary, count: int) -> None:
    """Drawn scenes of a held-out word and a seen one each, every word as often as the others."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in vocabulary.classes))
    for i in range(count):
        shown = (
            vocabulary.labelled[i % len(vocabulary.labelled)],
            vocabulary.seen[i % len(vocabulary.seen)],
        )
        scene = draw_scene(scene_seed("paper", START + i), classes=shown)
        label = np.zeros(scene.image.shape[:2], np.uint8)
        for name, mask in zip(scene.classes, scene.masks, strict=True):
            label[mask] = vocabulary.label(name)
        Image.fromarray(scene.image).save(folder / "images" / f"{i:04d}.png")
        Image.fromarray(label).save(folder / "masks" / f"{i:04d}.png")


def own_samples(
    pipe, params: Params, workspace: Workspace, count: int, timestep: int, folder: Path
) -> list[Sample]:
    """The own pictures as the stages `triplets` and `grounding_model` make them."""
    words = load_vocabulary(params.vocabulary)
    own = dataclasses.replace(words, unseen=(), labelled=words.unseen)
    write_own(folder / "own", own, count)
    triplets = dataclasses.replace(params.triplets, labels=str(folder / "own"))
    params = dataclasses.replace(params, triplets=triplets)
    images = workspace.folder("images")
    generated = read_shards(images, ["key", "std", "dhash", "height", "width"])
    size = (int(generated.height[0]), int(generated.width[0]))
    place = Workspace(folder, params.profile).folder("triplets")
    write_labelled(params, workspace, own, size, place, "benchmark")
    parts = own_triplets(place, labelled_shards(place), images, generated, triplets)
    rows = pd.concat(parts, ignore_index=True)
    rles = [rle for shard in shard_files(place / OWN) for rle in own_rles(shard)]
    whole = rows.assign(rle=rles)[TRIPLETS.names]
    write_shards(place, "benchmark", [range(len(whole))], lambda _: whole, TRIPLETS)
    return labelled_samples(pipe, Workspace(folder, params.profile), timestep, 40)


def score(module: GroundingModule, source: FeatureSource, vocabulary: Vocabulary) -> dict:
    """mIoU in percent by cell of Protocol I, and over seen and held-out words."""
    masks = []
    for start in range(0, len(source), 20):
        places = range(start, min(start + 20, len(source)))
        found = predict_masks(module, source.batch(places))
        masks += [own[: len(source.samples[i].words)] for i, own in zip(places, found, strict=True)]
    rows = score_rows(source.samples, {"ours": masks}, vocabulary)
    words = {
        name: float(100 * part.groupby("entity").iou_ours.mean().mean())
        for name, part in (("seen words", rows[rows.seen]), ("held-out words", rows[~rows.seen]))
    }
    return protocol_one(rows, ["ours"], 10)["ours"] | words


def measure(params: Params, workspace: Workspace, chosen: argparse.Namespace) -> list[dict]:
    """A row a training: own pictures, seed, seconds, and the scores."""
    vocabulary = load_vocabulary(params.vocabulary)
    grounding = dataclasses.replace(
        params.grounding, steps=chosen.steps, evaluate_every=chosen.steps
    )
    pipe = load_pipeline(workspace.located(params.diffusion))
    generated = load_samples(workspace, ["train"])
    order = np.random.default_rng(0).permutation(len(generated))[: chosen.pictures]
    generated = [generated[i] for i in order]
    validation, sim = (load_samples(workspace, [name]) for name in ("validation", "sim"))
    sim = [sim[i] for i in spread(len(sim), chosen.sim)]  # evenly over the cells
    with tempfile.TemporaryDirectory() as folder:
        own = own_samples(
            pipe, params, workspace, max(chosen.counts), sim[0].timestep, Path(folder)
        )
        config = config_for(pipe, generated, grounding, grounding.variant)
        sources = [
            FeatureSource(
                pipe,
                part,
                sample_evidence(pipe, part, config.evidence_timesteps, params.diffusion.batch_size),
            )
            for part in (generated + own, validation[:VALIDATION], sim)
        ]
        rows = []
        for seed in range(chosen.seeds):
            for count in chosen.counts:
                started = time.perf_counter()
                torch.manual_seed(seed)
                module = GroundingModule(config).to(pipe.device)
                part = Part(sources[0], range(len(generated) + min(count, len(own))))
                entities = [s.entities for s in sources[1].samples]
                train(module, part, sources[1], entities, grounding, seed)
                row = {"own pictures": min(count, len(own)), "seed": seed}
                row |= score(module, sources[2], vocabulary)
                rows.append(row | {"seconds": time.perf_counter() - started})
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def table(rows: list[dict]) -> str:
    """Mean over seeds, and the spread (standard deviation), by number of own pictures."""
    frame = pd.DataFrame(rows)
    columns = [*(cell for cell in CELLS if cell in frame), "seen words", "held-out words"]
    lines = ["| own pictures | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for count, part in frame.groupby("own pictures"):
        spread = part[columns].std(ddof=1) if len(part) > 1 else part[columns].mean() * 0
        cells = [f"{part[name].mean():.1f} ± {spread[name]:.1f}" for name in columns]
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@exit_path
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_profile(parser)
    parser.add_argument("--counts", type=number(int, 0), nargs="+", default=[0, 5, 20, 100])
    parser.add_argument("--seeds", type=number(int, 1), default=3)
    parser.add_argument("--pictures", type=number(int, 1), default=120)
    parser.add_argument("--steps", type=number(int, 1), default=150)
    parser.add_argument("--sim", type=number(int, 5), default=150)
    parser.add_argument("--output", type=Path)
    add_root(parser)
    chosen = parser.parse_args()
    params = load_params(chosen.profile)
    rows = measure(params, Workspace(chosen.root, params.profile), chosen)
    if chosen.output:
        write_json(chosen.output, rows)
    print(table(rows))


if __name__ == "__main__":
    sys.exit(main())
