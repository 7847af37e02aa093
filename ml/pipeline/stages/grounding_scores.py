"""Stage `grounding_scores`: Protocol I, the module beside DAAM on pictures it never trained on.

The truth is the oracle detector's masks on the sim set. mIoU of a cell is the mean over classes of
the mean IoU of that class's accepted masks, in percent (the paper averages over classes too).
Not here: the measure (`ml.metrics.protocol_one`), DAAM's maps (recorded by the stage `images` while
it draws the pictures).
"""

from collections.abc import Iterator, Sequence
from itertools import tee
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from tqdm import tqdm

from ml.baselines.daam import best_threshold, candidate_thresholds, threshold_masks
from ml.compute.batching import Batches
from ml.diffusion.loading import load_pipeline
from ml.grounding.engine import GroundingEngine
from ml.grounding.grounded import Grounded
from ml.grounding.module import GroundingModule
from ml.grounding.samples import Sample
from ml.images.contact_sheet import contact_sheet, spread
from ml.images.overlays import PALETTE
from ml.metrics.iou import binary_iou
from ml.metrics.protocol_one import cell_scores
from ml.pipeline.samples import iter_samples, load_samples
from ml.pipeline.scored import Scored
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.files import atomic
from ml.store.objects import local_copy
from ml.words.cells import CELLS
from ml.words.vocabulary import Vocabulary, load_vocabulary

METHODS = ("ours", "daam")
SHEET_PICTURES = 10

SCORES = pa.schema(
    [
        ("key", pa.string()),
        ("cell", pa.string()),
        ("entity", pa.string()),
        ("seen", pa.bool_()),
        ("iou_ours", pa.float64()),  # 0..1
        ("iou_daam", pa.float64()),  # 0..1
    ]
)


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes scores.parquet (one row a mask, SCORES), a contact sheet, and what
    `ml.pipeline.scored` keeps beside.

    DAAM's threshold is the best on the accepted masks of seen training pictures.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    folder = workspace.folder("grounding_scores")
    training, again = tee(iter_samples(workspace, ["train", "validation"]))
    threshold, on_training = best_threshold(
        training,
        (sample.daam for sample in again),
        candidate_thresholds(params.benchmark.daam_thresholds),
    )
    sim = load_samples(workspace, ["sim"])
    with local_copy(workspace.folder("grounding_model")) as place:
        module = GroundingModule.from_pretrained(place)
    pipe = load_pipeline(workspace.located(params.diffusion))
    size, shown, parts = params.diffusion.batch_size, _shown(sim), []
    grounded, scored = GroundingEngine(pipe, module, size), Scored()
    for part, found in ground_batches(grounded, sim, size):
        ours = found.masks
        for sample, *own in zip(part, ours, found.probabilities, strict=True):
            _keep(scored, sample, *own, vocabulary)
        daam = [threshold_masks(s.daam, s.size, threshold) for s in part]
        parts.append(score_rows(part, {"ours": ours, "daam": daam}, vocabulary))
        for sample, *masks in zip(part, ours, daam, strict=True):
            if sample.key in shown:
                shown[sample.key] = (sample, *masks)
    scores = pd.concat(parts, ignore_index=True)
    with atomic(folder / "scores.parquet") as temporary:
        scores.to_parquet(temporary, schema=SCORES, index=False)
    _sheet(list(shown.values()), vocabulary, folder / "contact_sheet.jpg")
    scored.write(folder)
    facts = protocol_one(scores, METHODS, params.benchmark.bootstrap)
    return Output(
        facts=facts
        | {
            "daam_threshold": threshold,
            "daam_training_miou": on_training,
            "variant": module.config.variant,
            "calibration_error": scored.errors,
        }
    )


def ground_batches(
    grounded: GroundingEngine, samples: Sequence[Sample], batch_size: int
) -> Iterator[tuple[Sequence[Sample], Grounded]]:
    """Grounds stored pictures from their latents: yields batches with their masks.

    Raises ValueError when the latents are of another timestep than the module was trained on.
    """
    trained = grounded.config.feature_timestep
    others = sorted({s.timestep for s in samples} - {trained})
    if others:
        raise ValueError(
            f"latents of timesteps {others}, but the grounding module was trained on "
            f"{trained}; make images and grounding_model with one scheduler"
        )
    with tqdm(total=len(samples), desc="Protocol I", unit="picture") as bar:
        for part, found in Batches(batch_size).run(samples, grounded.ground_samples):
            yield part, found
            bar.update(len(part))


def _keep(
    scored: Scored, sample: Sample, masks: np.ndarray, soft: np.ndarray, vocabulary: Vocabulary
) -> None:
    """A picture's masks bool (n,H,W) and probabilities float32 (n,H,W), where there is a truth."""
    true = sample.masks
    for i in np.flatnonzero(sample.present):
        entity = sample.entities[i]
        seen = entity in vocabulary.seen
        scored.add(sample.key, entity, seen, masks[i], soft[i], true[i])


def score_rows(
    samples: Sequence[Sample], masks: dict[str, Sequence[np.ndarray]], vocabulary: Vocabulary
) -> pd.DataFrame:
    """One row for every accepted mask of the samples: key, cell, entity, seen, iou_<method>.

    masks: for each method bool (n_i,H,W) of each sample.
    """
    rows = []
    for place, sample in enumerate(samples):
        truth = sample.masks
        for i in np.flatnonzero(sample.present):
            rows.append(
                {
                    "key": sample.key,
                    "cell": sample.cell,
                    "entity": sample.entities[i],
                    "seen": sample.entities[i] in vocabulary.seen,
                }
                | {
                    f"iou_{method}": binary_iou(found[place][i], truth[i])
                    for method, found in masks.items()
                }
            )
    return pd.DataFrame(rows)


def protocol_one(scores: pd.DataFrame, methods: Sequence[str], resamples: int) -> dict:
    """The table: for each method and cell mIoU, its 95 % interval and the classes' mean IoU.

    {"ours": {cell: mIoU}, "daam": ..., "intervals": {method: {cell: [low, high]}}, "per_class":
    {method: {cell: {class: mIoU}}}, "pictures": {cell: n}, "masks": {cell: n}}; percent. A cell
    without masks (a vocabulary without unseen classes) is left out.
    """
    cells = [cell for cell in CELLS if (scores.cell == cell).any()]
    table: dict = {method: {} for method in methods}
    table |= {
        "intervals": {m: {} for m in methods},
        "per_class": {m: {} for m in methods},
        "pictures": {},
        "masks": {},
    }
    for cell in cells:
        rows = scores[scores.cell == cell]
        table["pictures"][cell], table["masks"][cell] = int(rows.key.nunique()), len(rows)
        for method in methods:
            miou, interval, classes = cell_scores(
                rows[f"iou_{method}"], rows.entity, rows.key, resamples
            )
            table[method][cell] = miou
            table["intervals"][method][cell] = interval
            table["per_class"][method][cell] = classes
    return table


def _shown(samples: Sequence[Sample]) -> dict[str, tuple]:
    """Key -> () for the pictures of the contact sheet in its order, two a cell where it has two."""
    keys = [[s.key for s in samples if s.cell == cell] for cell in CELLS]
    return {own[j]: () for own in keys for j in spread(len(own), SHEET_PICTURES // len(CELLS))}


def _sheet(shown: Sequence[tuple], vocabulary: Vocabulary, path: Path) -> None:
    """Writes three pictures a sample: ours, DAAM, oracle. shown: (sample, ours, daam)."""
    images, masks, captions, colours = [], [], [], []
    for sample, ours, daam in shown:
        for name, found in (("ours", ours), ("DAAM", daam), ("oracle", sample.masks)):
            images.append(sample.image)
            masks.append(found)
            captions.append(f"{name}: {' + '.join(sample.words)}")
            colours.append([PALETTE[vocabulary.label(e)] for e in sample.entities])
    contact_sheet(images, masks, captions, path, columns=6, colours=colours)
