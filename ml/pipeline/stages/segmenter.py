"""Stage `segmenter`: a segmenter trained on the accepted synthetic pictures alone.

Reads: `synthetic_dataset`. Writes: model/ (save_pretrained form), curve.csv, contact_sheet.jpg of
held-out pictures. Settings: seed, vocabulary, segmenter, benchmark.source. `real_bound` calls
`fit`, too, so that the two differ in their pictures and in nothing else. Not here: architectures
and the training loop (`ml.segmenters`), scores (`benchmark_scores`).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from ml.compute import processes
from ml.compute.precision import usable_precision
from ml.images.contact_sheet import contact_sheet, spread
from ml.images.overlays import IGNORED
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.segmenters import architecture
from ml.segmenters.held_out import keep_apart
from ml.segmenters.pictures import is_stored, open_encoded, store_encoded
from ml.segmenters.prediction import predict_each
from ml.segmenters.training import hold_out, train
from ml.settings.params import Params
from ml.store.files import atomic
from ml.store.manifest import PROGRESS
from ml.store.shards import iter_shards, read_shards, with_keys
from ml.words.vocabulary import Vocabulary, load_vocabulary

SHEET_PICTURES = 12
COLUMNS = ["key", "entities", "accepted"]


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Trains within the stage's folder; goes on from `.progress/` after a kill.

    Raises ValueError when no synthetic picture was accepted.
    """
    rows = accepted_rows(workspace)
    if params.benchmark.source == "none":
        kept, _ = keep_apart(rows.key, params.seed)  # the others are all there is to score on
        rows = rows[rows.key.isin(kept)]
    source = workspace.folder("synthetic_dataset")
    file = workspace.folder("segmenter") / PROGRESS / "pictures.arrow"

    def store() -> None:
        if not is_stored(file):
            wanted, frames = set(rows.key), iter_shards(source, ["key", "image", "label"])
            store_encoded(file, (with_keys(frame, wanted) for frame in frames))

    processes.on_main(store)
    return Output(facts=fit("segmenter", *open_encoded(file), params, workspace))


def accepted_rows(workspace: Workspace, columns: Iterable[str] = COLUMNS) -> pd.DataFrame:
    """The accepted rows of `synthetic_dataset`. Raises ValueError when there is none.

    columns: that are read; `accepted` must be among them.
    """
    folder = workspace.folder("synthetic_dataset")
    rows = read_shards(folder, list(columns))
    if not rows.accepted.any():
        raise ValueError(
            f"none of the {len(rows)} pictures in {folder} was accepted; look at "
            "their reasons and at the thresholds in `synthetic:`"
        )
    return rows[rows.accepted].reset_index(drop=True)


def fit(
    stage: str,
    images: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    params: Params,
    workspace: Workspace,
) -> dict[str, Any]:
    """Trains the segmenter of the parameters and leaves its files in the stage's folder.

    images, labels: sequences of uint8 (H,W,3) RGB and of uint8 (H,W) in the vocabulary's labels,
    255 ignored: numpy arrays, or `ml.segmenters.pictures.Encoded`, which decodes each picture when
    it is asked for; pictures may differ in size when segmenter.crop_size is set. Returns the
    stage's facts, {} in all processes but the first.
    """
    folder, vocabulary = workspace.folder(stage), load_vocabulary(params.vocabulary)
    settings = params.segmenter
    torch.manual_seed(params.seed)  # of the weights that did not come trained
    model = architecture(settings.architecture).build(
        workspace.model(settings.backbone), ["background", *vocabulary.classes], settings
    )
    curve = train(model, images, labels, settings, folder / PROGRESS, params.seed)
    if not processes.is_main():
        return {}
    with atomic(folder / "model") as temporary:
        model.save_pretrained(temporary)
    with atomic(folder / "curve.csv") as temporary:
        pd.DataFrame(curve).to_csv(temporary, index=False)
    held = hold_out(len(images), params.seed)[1]
    held = held if len(held) else np.arange(len(images))  # a handful of pictures holds out none
    places = [held[place] for place in spread(len(held), SHEET_PICTURES)]
    _sheet(
        model,
        [images[i] for i in places],
        [labels[i] for i in places],
        folder / "contact_sheet.jpg",
    )
    device = next(model.parameters()).device.type
    facts = _facts(curve, labels, model, vocabulary)
    return facts | {"precision": usable_precision(settings.precision, device)}


def _facts(
    curve: list[dict[str, Any]],
    labels: Sequence[np.ndarray],
    model: nn.Module,
    vocabulary: Vocabulary,
) -> dict[str, Any]:
    last = curve[-50:]  # one step's loss is noise
    valued = [row["val_miou"] for row in curve if row["val_miou"] is not None]
    pixels, shown = np.zeros(256, np.int64), np.zeros(256, np.int64)
    for place in range(len(labels)):
        counts = np.bincount(labels[place].ravel(), minlength=256)
        pixels += counts
        shown += counts > 0
    facts = {
        "pictures": len(labels),
        "steps": len(curve),
        "loss": float(np.mean([row["loss"] for row in last])),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "ignored_share": float(pixels[IGNORED] / pixels.sum()),
        "pictures_by_class": {
            name: int(shown[vocabulary.label(name)]) for name in vocabulary.classes
        },
    }
    return facts | ({"val_miou": valued[-1]} if valued else {})


def _sheet(
    model: nn.Module, images: Sequence[np.ndarray], labels: Sequence[np.ndarray], path: Path
) -> None:
    """Two pictures a sample: its label map as given (255 in cream), and as predicted."""
    pictures, maps = [], []
    for image, label, predicted in zip(images, labels, predict_each(model, images), strict=True):
        pictures += [image, image]
        maps += [label, predicted]
    captions = ["given", "predicted"] * len(images)
    contact_sheet(pictures, maps, captions, path, columns=8)
