"""Stage `benchmark_scores`: Protocol II, both segmenters on the frozen benchmark.

Leaves scores.parquet (each picture's confusion, so that a later model can be compared on the same
pictures, paired) and a contact sheet. Not here: what a score is (`ml.metrics`), who is promoted.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from ml.files import atomic
from ml.metrics import (
    Statistic,
    bootstrap_interval,
    confusions,
    harmonic_mean,
    iou_per_class,
    miou,
    paired_bootstrap,
)
from ml.params import Params
from ml.pictures import contact_sheet, decode_png, spread
from ml.segmenters import load_segmenter
from ml.segmenters.training import pick_device, predict
from ml.shards import read_shards
from ml.stages import Output, Workspace
from ml.vocabulary import Vocabulary, load_vocabulary

MODELS = {"synthetic": "segmenter", "real_upper_bound": "real_bound"}
"""Name in the scores -> stage whose model it is."""

SCORES = pa.schema([
    ("key", pa.string()),  # of the benchmark picture
    ("model", pa.string()),  # a name in MODELS
    ("confusion", pa.list_(pa.int64())),  # (n+1)^2 pixel counts, rows truth, C order
])
SHEET_PICTURES = 10
BOOTSTRAP_SEED = 0


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Facts: for each model seen, unseen, harmonic, background, all (mIoU in percent, the first
    three and `all` over foreground classes), intervals and per_class; and what the labels cost.

    A vocabulary without unseen classes has neither unseen nor harmonic.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    folder = workspace.folder("benchmark_scores")
    rows = read_shards(workspace.folder("benchmark"), ["key", "image", "label"])
    images = np.stack([decode_png(data) for data in rows.image])
    labels = np.stack([decode_png(data) for data in rows.label])
    found, stacks = {}, {}
    for name, stage in MODELS.items():
        model = load_segmenter(workspace.folder(stage) / "model").to(pick_device())
        found[name] = predict(model, images)
        stacks[name] = confusions(found[name], labels, len(vocabulary.classes))
    write_scores(folder / "scores.parquet", list(rows.key), stacks)
    _sheet(images, labels, found, folder / "contact_sheet.jpg")
    n = params.benchmark.bootstrap
    facts: dict = {name: protocol_two(stack, vocabulary, n) for name, stack in stacks.items()}
    facts["label_cost"] = _label_cost(stacks, vocabulary, n)
    return Output(facts=facts | {"pictures": len(rows)})


def statistics(vocabulary: Vocabulary) -> dict[str, Statistic]:
    """The scores of Protocol II as functions of confusions (..., n+1, n+1), in percent."""
    seen = [vocabulary.label(name) for name in vocabulary.seen]
    unseen = [vocabulary.label(name) for name in vocabulary.unseen]
    table: dict[str, Statistic] = {
        "seen": lambda counts: 100 * miou(counts, seen),
        "background": lambda counts: 100 * miou(counts, [0]),
        "all": lambda counts: 100 * miou(counts, seen + unseen),
    }
    if unseen:
        table["unseen"] = lambda counts: 100 * miou(counts, unseen)
        table["harmonic"] = lambda counts: harmonic_mean(
            100 * miou(counts, seen), 100 * miou(counts, unseen))
    return table


def main_statistic(vocabulary: Vocabulary) -> Statistic:
    """What a segmenter is judged by: harmonic mIoU, or that of all classes if none is unseen."""
    table = statistics(vocabulary)
    return table.get("harmonic", table["all"])


def protocol_two(stack: np.ndarray, vocabulary: Vocabulary, resamples: int) -> dict:
    """One model's facts from its per-picture confusions (P, n+1, n+1); percent.

    Classes that are in no picture, neither drawn nor predicted, are not in `per_class`.
    """
    total, table = stack.sum(0), statistics(vocabulary)
    facts: dict = {name: float(statistic(total)) for name, statistic in table.items()}
    facts["intervals"] = {
        name: list(bootstrap_interval(statistic, stack, resamples, BOOTSTRAP_SEED))
        for name, statistic in table.items()
    }
    per_class = 100 * iou_per_class(total)
    facts["per_class"] = {name: float(per_class[vocabulary.label(name)])
                          for name in vocabulary.classes
                          if not np.isnan(per_class[vocabulary.label(name)])}
    return facts


def write_scores(path: Path, keys: list[str], stacks: dict[str, np.ndarray]) -> None:
    """stacks: model name -> int64 (P, n+1, n+1), rows as in `keys`."""
    frames = [
        pd.DataFrame({"key": keys, "model": name, "confusion": list(stack.reshape(len(keys), -1))})
        for name, stack in stacks.items()
    ]
    with atomic(path) as temporary:
        pd.concat(frames).to_parquet(temporary, schema=SCORES, index=False, compression="zstd")


def read_scores(path: Path, model: str = "synthetic") -> tuple[list[str], np.ndarray]:
    """Keys and per-picture confusions int64 (P, n+1, n+1) that `write_scores` left."""
    rows = pd.read_parquet(path, filters=[("model", "==", model)])
    if rows.empty:
        raise ValueError(f"no scores of {model!r} in {path}: make benchmark_scores again")
    stack = np.stack(list(rows.confusion))
    side = round(stack.shape[1] ** 0.5)
    return list(rows.key), stack.reshape(len(rows), side, side)


def _label_cost(stacks: dict[str, np.ndarray], vocabulary: Vocabulary, resamples: int) -> dict:
    """How much the bound scores above the synthetic segmenter, paired by picture; points of %."""
    difference, low, high = paired_bootstrap(
        main_statistic(vocabulary), stacks["real_upper_bound"], stacks["synthetic"], resamples,
        BOOTSTRAP_SEED)
    return {"points": difference, "interval": [low, high]}


def _sheet(images: np.ndarray, labels: np.ndarray, found: dict, path: Path) -> None:
    """Four pictures a sample: as it is, with the truth, with each model's label map."""
    pictures, maps, captions = [], [], []
    for place in spread(len(images), SHEET_PICTURES):
        pictures += [images[place]] * 4
        maps += [None, labels[place], found["synthetic"][place], found["real_upper_bound"][place]]
        captions += ["picture", "truth", "synthetic", "real bound"]
    contact_sheet(pictures, maps, captions, path, columns=8)
