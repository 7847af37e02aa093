"""Protocol I of both variants of the grounding module, DAAM and bare contrast, same pictures.

    python -m benchmarks.grounding_variants [--profile micro] [--variants paper seeded]

Wants the stages up to `triplets` finished. Each variant is trained here, from the same triplets
for the same steps, as the stage `grounding_model` does; nothing is written but what --output names.
"contrast" is leave-one-out contrast alone: maps averaged over the timesteps, each pixel to its
strongest word, above a threshold. Thresholds are the best on seen training pictures.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from ml.arguments import add_profile, add_root
from ml.baselines.daam import (
    best_threshold,
    candidate_thresholds,
    expand_as,
    strongest,
    threshold_masks,
)
from ml.diffusion.loading import load_pipeline
from ml.errors import EXIT_CODES, exit_path
from ml.grounding.config import VARIANTS
from ml.grounding.engine import GroundingEngine
from ml.grounding.features import sample_evidence
from ml.grounding.samples import refuse_unseen
from ml.pipeline.samples import load_samples
from ml.pipeline.stages.grounding_model import train_variant
from ml.pipeline.stages.grounding_scores import ground_batches, protocol_one, score_rows
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from ml.store.files import write_json
from ml.words.cells import CELLS
from ml.words.vocabulary import load_vocabulary


def compare(params, workspace: Workspace, variants: list[str]) -> dict:
    """`protocol_one` of the variants, "daam" and "contrast", with "seconds" of each training."""
    vocabulary = load_vocabulary(params.vocabulary)
    training = load_samples(workspace, ["train", "validation"])
    refuse_unseen(training, vocabulary.seen)
    sim = load_samples(workspace, ["sim"])
    pipe = load_pipeline(workspace.located(params.diffusion))
    masks, seconds = {}, {}
    for variant in variants:
        started = time.perf_counter()
        module, *_ = train_variant(pipe, training, params, variant)
        seconds[variant] = time.perf_counter() - started
        masks[variant] = [
            mask
            for _, found in ground_batches(
                GroundingEngine(pipe, module), sim, params.diffusion.batch_size
            )
            for mask in found.masks
        ]
    contrast = [
        [
            maps.mean(1)
            for maps in sample_evidence(
                pipe, samples, params.grounding.evidence_timesteps, params.diffusion.batch_size
            )
        ]
        for samples in (training, sim)
    ]
    baselines = {
        "daam": ([s.daam for s in training], [s.daam for s in sim], expand_as),
        "contrast": (*contrast, strongest),
    }
    candidates = candidate_thresholds(params.benchmark.daam_thresholds)
    thresholds = {}
    for name, (on_training, on_sim, scale) in baselines.items():
        thresholds[name], _ = best_threshold(training, on_training, candidates, scale)
        masks[name] = [
            threshold_masks(maps, s.size, thresholds[name], scale)
            for maps, s in zip(on_sim, sim, strict=True)
        ]
    scores = score_rows(sim, masks, vocabulary)
    return protocol_one(scores, list(masks), params.benchmark.bootstrap) | {
        "seconds": seconds,
        "thresholds": thresholds,
    }


def print_table(table: dict, methods: list[str]) -> None:
    """A row a method, a column a cell: mIoU % and half the width of its 95 % interval."""
    cells = [cell for cell in CELLS if cell in table["pictures"]]
    print("".join(["mIoU %".ljust(12), *(f"{cell:>18}" for cell in cells)]))
    for method in methods:
        row = [method.ljust(12)]
        for cell in cells:
            half = np.diff(table["intervals"][method][cell])[0] / 2
            row.append(f"{table[method][cell]:.1f} ± {half:.1f}".rjust(18))
        print("".join(row))
    print("pictures".ljust(12) + "".join(f"{table['pictures'][cell]:>18}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_profile(parser)
    add_root(parser)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--output", type=Path, help="JSON file for the whole table")
    chosen = parser.parse_args()
    params = load_params(chosen.profile)
    table = compare(params, Workspace(chosen.root, params.profile), chosen.variants)
    print_table(table, [*chosen.variants, "daam", "contrast"])
    print(json.dumps({"seconds": table["seconds"], "thresholds": table["thresholds"]}))
    if chosen.output:
        write_json(chosen.output, table)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
