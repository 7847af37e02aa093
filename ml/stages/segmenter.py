"""Stage `segmenter`: a segmenter trained on the accepted synthetic pictures alone.

Leaves `model/` (save_pretrained form), curve.csv and a contact sheet of held-out pictures. `fit`
is also what `real_bound` calls, so that the two differ in their pictures and in nothing else. Not
here: architectures and the training loop (`ml.segmenters`), scores (`benchmark_scores`).
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ml.files import atomic
from ml.heldout import keep_apart
from ml.params import Params
from ml.pictures import IGNORED, contact_sheet, decode_png, spread
from ml.segmenters import architecture
from ml.segmenters.training import hold_out, predict, train
from ml.shards import read_shards
from ml.stages import Output, Workspace
from ml.vocabulary import Vocabulary, load_vocabulary

SHEET_PICTURES = 12
COLUMNS = ["key", "entities", "image", "label", "accepted"]


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Trains within the stage's folder; goes on from `.progress/` after a kill.

    Raises ValueError when no synthetic picture was accepted.
    """
    rows = accepted_rows(workspace)
    if params.benchmark.source == "none":
        kept, _ = keep_apart(rows.key, params.seed)  # the others are all there is to score on
        rows = rows[rows.key.isin(kept)]
    images = np.stack([decode_png(data) for data in rows.image])
    labels = np.stack([decode_png(data) for data in rows.label])
    return Output(facts=fit("segmenter", images, labels, params, workspace))


def accepted_rows(workspace: Workspace) -> pd.DataFrame:
    """The accepted rows of `synthetic_dataset`. Raises ValueError when there is none."""
    folder = workspace.folder("synthetic_dataset")
    rows = read_shards(folder, COLUMNS)
    if not rows.accepted.any():
        raise ValueError(f"none of the {len(rows)} pictures in {folder} was accepted; look at "
                         "their reasons and at the thresholds in `synthetic:`")
    return rows[rows.accepted].reset_index(drop=True)


def fit(
    stage: str, images: np.ndarray, labels: np.ndarray, params: Params, workspace: Workspace
) -> dict:
    """Trains the segmenter of the parameters and leaves its files in the stage's folder.

    images: uint8 (N,H,W,3) RGB, labels: uint8 (N,H,W) in the vocabulary's labels, 255 ignored.
    Returns the stage's facts.
    """
    folder, vocabulary = workspace.folder(stage), load_vocabulary(params.vocabulary)
    settings = params.segmenter
    torch.manual_seed(params.seed)  # of the weights that did not come trained
    model = architecture(settings.architecture).build(
        Path(workspace.model(settings.backbone)), ["background", *vocabulary.classes], settings)
    curve = train(model, images, labels, settings, folder / ".progress", params.seed)
    with atomic(folder / "model") as temporary:
        model.save_pretrained(temporary)
    with atomic(folder / "curve.csv") as temporary:
        pd.DataFrame(curve).to_csv(temporary, index=False)
    held = hold_out(len(images), params.seed)[1]
    held = held if len(held) else np.arange(len(images))  # a handful of pictures holds out none
    _sheet(model, images[held], labels[held], folder / "contact_sheet.jpg")
    shutil.rmtree(folder / ".progress", ignore_errors=True)
    return _facts(curve, images, labels, model, vocabulary)


def _facts(curve: list[dict], images, labels, model, vocabulary: Vocabulary) -> dict:
    last = curve[-50:]  # one step's loss is noise
    valued = [row["val_miou"] for row in curve if row["val_miou"] is not None]
    shown = np.array([(labels == vocabulary.label(name)).any((1, 2)).sum()
                      for name in vocabulary.classes])
    facts = {
        "pictures": len(images),
        "steps": len(curve),
        "loss": float(np.mean([row["loss"] for row in last])),
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "ignored_share": float((labels == IGNORED).mean()),
        "pictures_by_class": dict(zip(vocabulary.classes, shown.tolist(), strict=True)),
    }
    return facts | ({"val_miou": valued[-1]} if valued else {})


def _sheet(model, images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """Two pictures a sample: its label map as given (255 in cream), and as predicted."""
    places = spread(len(images), SHEET_PICTURES)
    found = predict(model, images[places])
    pictures, maps, captions = [], [], []
    for place, predicted in zip(places, found, strict=True):
        pictures += [images[place], images[place]]
        maps += [labels[place], predicted]
        captions += ["given", "predicted"]
    contact_sheet(pictures, maps, captions, path, columns=8)
