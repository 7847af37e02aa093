"""python -m ml.foundation.stage_pictures --profile micro --out docs/images/stages

One small picture a stage, drawn from the folders of a finished run: those of docs/how-it-works.md.
Nothing is made again but masks of the few pictures shown.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ml.arguments import add_profile, add_root
from ml.baselines.daam import expand_as, threshold_masks
from ml.compute.batching import Batches
from ml.diffusion.loading import load_pipeline
from ml.errors import EXIT_CODES, exit_path
from ml.foundation.stage_sheets import Tile, bars, heat, sheet, text_lines
from ml.grounding.engine import GroundingEngine
from ml.grounding.features import compute_evidence
from ml.grounding.module import GroundingModule
from ml.grounding.samples import Sample
from ml.images.contact_sheet import spread
from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.images.stored import load_pictures
from ml.pipeline.samples import load_samples
from ml.pipeline.workspace import Workspace
from ml.segmenters import load_segmenter
from ml.segmenters.prediction import predict
from ml.settings.params import Params
from ml.settings.profile import load_params
from ml.store.manifest import read_manifest
from ml.store.reading import read_object
from ml.store.shards import read_shards
from ml.words.vocabulary import load_vocabulary

Run = tuple[Params, Workspace]


def benchmark(run: Run, out: Path) -> None:
    """Six test pictures, each with its exact labels."""
    rows = read_shards(run[1].folder("benchmark")).iloc[:6]
    tiles = [
        Tile(decode_png(row.image), over, caption)
        for row in rows.itertuples()
        for over, caption in ((None, ", ".join(row.entities)), (decode_png(row.label), "labels"))
    ]
    sheet(tiles, out, columns=6)


def prompts(run: Run, out: Path) -> None:
    """Two prompts of each purpose, their words in the colour of seen or unseen."""
    vocabulary = load_vocabulary(run[0].vocabulary)
    rows = read_shards(run[1].folder("prompts"))
    two = rows[rows.entities.map(len) == 2]
    shown = pd.concat([own.iloc[[0, len(own) // 2]] for _, own in two.groupby("purpose")])
    lines = [
        (
            row.purpose,
            row.text,
            {w: e in vocabulary.seen for w, e in zip(row.words, row.entities, strict=True)},
        )
        for row in shown.sort_values("purpose", ascending=False).itertuples()
    ]
    text_lines(lines, out)


def images(run: Run, out: Path) -> None:
    """Generated pictures, and where the diffusion model's attention has each word."""
    tiles = []
    for sample in _two_objects(run, "train", 3):
        tiles.append(Tile(sample.image, None, sample.text))
        maps = expand_as(sample.daam, sample.size)
        tiles += [
            Tile(heat(m), None, f"heat of {w}") for m, w in zip(maps, sample.words, strict=True)
        ]
    sheet(tiles, out, columns=9)


def masks(run: Run, out: Path) -> None:
    """What the detector found in training pictures, and what it did not look for."""
    params, workspace = run
    found = read_shards(workspace.folder("masks"))
    found = found[(found.purpose == "train") & found.found]
    keys = list(dict.fromkeys(found.key))[:: max(1, found.key.nunique() // 9)][:9]
    pictures = load_pictures(workspace.folder("images"), keys)
    tiles = []
    for key in keys:
        rows = found[found.key == key]
        caption = ", ".join(f"{row.word} {row.score:.2f}" for row in rows.itertuples())
        tiles.append(Tile(pictures[key], np.array([decode_rle(r) for r in rows.rle]), caption))
    sheet(tiles, out, columns=9)


def triplets(run: Run, out: Path) -> None:
    """Accepted triplets, then rejected ones with the reason of each."""
    workspace = run[1]
    rows = read_shards(workspace.folder("triplets"))
    rejected = rows[~rows.accepted & (rows.rle != "")]
    reasons = [own.iloc[:2] for _, own in rejected.groupby("reason")]
    shown = pd.concat([rows[rows.accepted].iloc[:5], *reasons]).iloc[:9]
    pictures = load_pictures(workspace.folder("images"), list(shown.key))
    sheet(
        [
            Tile(pictures[row.key], decode_rle(row.rle), f"{row.word}: {row.reason or 'accepted'}")
            for row in shown.itertuples()
        ],
        out,
        columns=9,
    )


def grounding_model(run: Run, engine: GroundingEngine, out: Path) -> None:
    """The contrast of each word, then the masks that the module makes of it."""
    tiles, times = [], engine.config.evidence_timesteps
    for sample in _two_objects(run, "sim", 2, "two_unseen"):
        tiles.append(Tile(sample.image, None, " + ".join(sample.words)))
        if times:
            (maps,) = compute_evidence(
                engine.pipe, [sample.image], [sample.text], [sample.phrases], times,
                [sample.seed], Batches(1),
            )  # fmt: skip
            wide = expand_as(maps.mean(axis=1), sample.size)
            tiles += [
                Tile(heat(m), None, f"contrast of {word}")
                for m, word in zip(wide, sample.words, strict=True)
            ]
        tiles.append(Tile(sample.image, engine.ground_samples([sample]).masks[0], "masks"))
    sheet(tiles, out, columns=8)


def grounding_scores(run: Run, engine: GroundingEngine, out: Path) -> None:
    """Two unseen words: ours, DAAM and the detector that judges, on the same pictures."""
    scores = read_manifest(run[1].folder("grounding_scores"), verify=False).facts
    tiles = []
    for sample in _two_objects(run, "sim", -3, "two_unseen"):
        ours = engine.ground_samples([sample]).masks[0]
        daam = threshold_masks(sample.daam, sample.size, scores["daam_threshold"])
        for name, own in (("ours", ours), ("DAAM", daam), ("detector", sample.masks)):
            tiles.append(Tile(sample.image, own, f"{name}: {' + '.join(sample.words)}"))
    sheet(tiles, out, columns=9)


def synthetic_dataset(run: Run, out: Path) -> None:
    """Pictures that the model drew and labelled itself; 255, in cream, is ignored."""
    rows = read_shards(run[1].folder("synthetic_dataset"))
    accepted = rows[rows.accepted]
    shown = pd.concat([accepted.iloc[:: max(1, len(accepted) // 6)][:6], rows[~rows.accepted][:3]])
    sheet(
        [
            Tile(decode_png(row.image), decode_png(row.label), row.reason or " + ".join(row.words))
            for row in shown.itertuples()
        ],
        out,
        columns=9,
    )


def segmenters(run: Run, out: Path) -> None:
    """Test pictures of an unseen class: the exact labels, and what each segmenter says."""
    workspace, unseen = run[1], set(load_vocabulary(run[0].vocabulary).unseen)
    rows = read_shards(workspace.folder("benchmark"))
    rows = rows[rows.entities.map(lambda own: len(own) > 1 and bool(unseen & set(own)))]
    rows = rows.iloc[:: max(1, len(rows) // 4)][:4]
    pictures = np.stack([decode_png(data) for data in rows.image])
    said = {
        name: predict(load_segmenter(workspace.folder(stage) / "model"), pictures)
        for name, stage in (("from synthetic", "segmenter"), ("real bound", "real_bound"))
    }
    tiles = []
    for place, row in enumerate(rows.itertuples()):
        tiles += [Tile(pictures[place], decode_png(row.label), "truth")]
        tiles += [Tile(pictures[place], own[place], name) for name, own in said.items()]
    sheet(tiles, out, columns=6)


def promotion(run: Run, out: Path) -> None:
    """Each model's score beside the floor that a champion needs."""
    verdict = read_object(run[1].folder("promotion") / "verdict.json")
    floors = run[0].promotion
    bars(
        {name: (own["candidate"]["score"], own["state"]) for name, own in verdict.items()},
        {"grounding": floors.min_grounding, "segmenter": floors.min_segmenter},
        out,
    )


def _two_objects(run: Run, subset: str, count: int, cell: str | None = None) -> list[Sample]:
    """Of five samples of two words, evenly spread over those of a subset (and cell), the first
    `count`; the last ones for a negative count."""
    there = [
        s
        for s in load_samples(run[1], [subset])
        if len(s.words) == 2 and s.present.all() and cell in (None, s.cell)
    ]
    five = [there[place] for place in spread(len(there), 5)]
    return five[:count] if count > 0 else five[count:]


@exit_path
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXIT_CODES)
    add_profile(parser)
    add_root(parser)
    parser.add_argument("--out", type=Path, default=Path("docs/images/stages"))
    chosen = parser.parse_args(arguments)
    params = load_params(chosen.profile)
    run = params, Workspace(chosen.root, params.profile)
    torch.manual_seed(params.seed)
    module = GroundingModule.from_pretrained(run[1].folder("grounding_model"))
    engine = GroundingEngine(load_pipeline(run[1].located(params.diffusion)), module)
    drawn: dict[str, Callable[[Path], None]] = {
        make.__name__: partial(make, run)
        for make in (benchmark, prompts, images, masks, triplets, synthetic_dataset, segmenters,
                     promotion)
    }  # fmt: skip
    drawn |= {m.__name__: partial(m, run, engine) for m in (grounding_model, grounding_scores)}
    for name, draw in drawn.items():
        draw(chosen.out / f"{name}.jpg")
        print(chosen.out / f"{name}.jpg")


if __name__ == "__main__":
    sys.exit(main())
