"""Stage `benchmark_scores`: Protocol II, both segmenters on the benchmark.

Reads: `benchmark`, `segmenter`, `real_bound`; `synthetic_dataset`, whose held-out pictures take the
benchmark's place for source none (`held_out_synthetic` is then in the facts). Writes:
scores.parquet (each picture's confusion, so that a later model can be compared on the same
pictures, paired), contact_sheet.jpg. Settings: seed, vocabulary, benchmark.source,
benchmark.bootstrap. Not here: what a score is (`ml.metrics.iou`), who is promoted.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from torch import nn

from ml.compute.devices import own_device
from ml.images.contact_sheet import contact_sheet, spread
from ml.images.png import decode_png
from ml.metrics.bootstrap import bootstrap_interval, paired_bootstrap
from ml.metrics.iou import Statistic, confusion, harmonic_mean, iou_per_class, miou
from ml.pipeline.stages.segmenter import accepted_rows
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.segmenters import load_segmenter
from ml.segmenters.held_out import keep_apart
from ml.segmenters.prediction import predict_each
from ml.settings.params import Params
from ml.store.files import atomic
from ml.store.manifest import read_manifest
from ml.store.objects import local_copy
from ml.store.shards import iter_shards, read_frame, read_shards, with_keys
from ml.words.vocabulary import Vocabulary, load_vocabulary

MODELS = {"synthetic": "segmenter", "real_upper_bound": "real_bound"}
"""Name in the scores -> stage whose model it is."""

SCORES = pa.schema(
    [
        ("key", pa.string()),  # of the benchmark picture
        ("model", pa.string()),  # a name in MODELS
        ("confusion", pa.list_(pa.int64())),  # (n+1)^2 pixel counts, rows truth, C order
    ]
)
SHEET_PICTURES = 10
CAPTIONS = {
    "picture": "picture",
    "truth": "truth",
    "synthetic": "synthetic",
    "real_upper_bound": "real bound",
}
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class TruthSet:
    """Pictures with truth: frames with the columns key, image, label, in the order of `keys`.

    Pictures may differ in size; a frame is a shard, and one is decoded at a time.
    """

    name: str  # of the benchmark, in words
    keys: list[str]
    frames: Iterable[pd.DataFrame]
    unscored: list[str]  # classes of the vocabulary that the truth has no labels of
    synthetic: bool  # held-out synthetic pictures, since there is no benchmark


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Facts: for each model seen, unseen, harmonic, background, all (mIoU in percent, the first
    three and `all` over foreground classes), intervals and per_class; and what the labels cost.

    A vocabulary without unseen (or seen) classes has neither unseen (seen) nor harmonic. Without
    a bound there is neither real_upper_bound nor label_cost.
    """
    vocabulary, n = load_vocabulary(params.vocabulary), params.benchmark.bootstrap
    folder = workspace.folder("benchmark_scores")
    tested = truth_set(params, workspace, vocabulary)
    models = {
        name: _opened(workspace.folder(stage) / "model")
        for name, stage in MODELS.items()
        if has_model(workspace, stage)
    }
    shown = set(np.array(tested.keys)[spread(len(tested.keys), SHEET_PICTURES)])
    stacks, tiles = score(models, tested, vocabulary, shown)
    write_scores(folder / "scores.parquet", tested.keys, stacks)
    _sheet(tiles, folder / "contact_sheet.jpg")
    facts: dict[str, Any] = {
        name: protocol_two(stack, vocabulary, n, tested.unscored) for name, stack in stacks.items()
    }
    if "real_upper_bound" in stacks:
        facts["label_cost"] = _label_cost(stacks, vocabulary, n, tested.unscored)
    if tested.synthetic:
        facts["held_out_synthetic"] = True
    return Output(
        facts=facts
        | {
            "benchmark": tested.name,
            "pictures": len(tested.keys),
            "unscored_classes": tested.unscored,
        }
    )


def _opened(folder: Path) -> nn.Module:
    with local_copy(folder) as place:
        return load_segmenter(place).to(own_device())


def truth_set(params: Params, workspace: Workspace, vocabulary: Vocabulary) -> TruthSet:
    """The benchmark, or with source none the synthetic pictures that `segmenter` did not see."""
    if params.benchmark.source == "none":
        _, held = keep_apart(accepted_rows(workspace).key, params.seed)
        asked = set(held)
        shards = iter_shards(workspace.folder("synthetic_dataset"), ["key", "image", "label"])
        return TruthSet(
            "held-out synthetic pictures",
            held,
            (with_keys(shard, asked) for shard in shards),
            [],
            True,
        )
    folder = workspace.folder("benchmark")
    made = read_manifest(folder, verify=False).facts
    return TruthSet(
        made.get("name", "the frozen benchmark"),
        list(read_shards(folder, ["key"]).key),
        iter_shards(folder, ["key", "image", "label"]),
        [name for name in vocabulary.classes if name not in made["labelled_classes"]],
        False,
    )


def has_model(workspace: Workspace, stage: str) -> bool:
    """Whether a training stage left a model; `real_bound` says why where it did not."""
    return bool(read_manifest(workspace.folder(stage), verify=False).facts.get("model", True))


def score(
    models: Mapping[str, nn.Module], tested: TruthSet, vocabulary: Vocabulary, shown: set[str]
) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Each model's per-picture confusions int64 (P, n+1, n+1), and the pictures to be shown.

    A prediction of a class that the truth has no labels of counts as background, because the
    truth calls it that: such a class is neither right nor wrong here. A tile is a dict of picture,
    truth and each model's label map.
    """
    n = len(vocabulary.classes)
    stacks = {name: np.zeros((len(tested.keys), n + 1, n + 1), np.int64) for name in models}
    decided = np.arange(256, dtype=np.uint8)
    decided[[vocabulary.label(name) for name in tested.unscored]] = 0
    tiles, place = [], 0
    for frame in tested.frames:
        images = [decode_png(data) for data in frame.image]
        labels = [decode_png(data) for data in frame.label]
        found = {
            name: [decided[label] for label in predict_each(model, images)]
            for name, model in models.items()
        }
        for i, key in enumerate(frame.key):
            for name in models:
                stacks[name][place + i] = confusion(found[name][i], labels[i], n)
            if key in shown:
                tiles.append(
                    {"picture": images[i], "truth": labels[i]}
                    | {name: found[name][i] for name in models}
                )
        place += len(frame)
    return stacks, tiles


def statistics(vocabulary: Vocabulary, unscored: Sequence[str] = ()) -> dict[str, Statistic]:
    """The scores of Protocol II as functions of confusions (..., n+1, n+1), in percent."""
    seen = [vocabulary.label(name) for name in vocabulary.taught if name not in unscored]
    unseen = [vocabulary.label(name) for name in vocabulary.unseen if name not in unscored]
    table: dict[str, Statistic] = {
        "background": lambda counts: 100 * miou(counts, [0]),
        "all": lambda counts: 100 * miou(counts, seen + unseen),
    }
    if seen:
        table["seen"] = lambda counts: 100 * miou(counts, seen)
    if unseen:
        table["unseen"] = lambda counts: 100 * miou(counts, unseen)
    if seen and unseen:
        table["harmonic"] = lambda counts: harmonic_mean(
            100 * miou(counts, seen), 100 * miou(counts, unseen)
        )
    return table


def main_statistic(vocabulary: Vocabulary, unscored: Sequence[str] = ()) -> Statistic:
    """What a segmenter is judged by: harmonic mIoU, or that of all scored classes where none of
    them is unseen, or none seen."""
    table = statistics(vocabulary, unscored)
    return table.get("harmonic", table["all"])


def protocol_two(
    stack: np.ndarray, vocabulary: Vocabulary, resamples: int, unscored: Sequence[str] = ()
) -> dict[str, Any]:
    """One model's facts from its per-picture confusions (P, n+1, n+1); percent.

    Classes that are in no picture, neither drawn nor predicted, are not in `per_class`.
    """
    total, table = stack.sum(0), statistics(vocabulary, unscored)
    facts: dict[str, Any] = {name: float(statistic(total)) for name, statistic in table.items()}
    facts["intervals"] = {
        name: list(bootstrap_interval(statistic, stack, resamples, BOOTSTRAP_SEED))
        for name, statistic in table.items()
    }
    per_class = 100 * iou_per_class(total)
    facts["per_class"] = {
        name: float(per_class[vocabulary.label(name)])
        for name in vocabulary.classes
        if not np.isnan(per_class[vocabulary.label(name)])
    }
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
    rows = read_frame(path, filters=[("model", "==", model)])
    if rows.empty:
        raise ValueError(f"no scores of {model!r} in {path}: make benchmark_scores again")
    stack = np.stack(list(rows.confusion))
    side = round(stack.shape[1] ** 0.5)
    return list(rows.key), stack.reshape(len(rows), side, side)


def _label_cost(
    stacks: dict[str, np.ndarray], vocabulary: Vocabulary, resamples: int, unscored: Sequence[str]
) -> dict[str, Any]:
    """How much the bound scores above the synthetic segmenter, paired by picture; points of %."""
    difference, low, high = paired_bootstrap(
        main_statistic(vocabulary, unscored),
        stacks["real_upper_bound"],
        stacks["synthetic"],
        resamples,
        BOOTSTRAP_SEED,
    )
    return {"points": difference, "interval": [low, high]}


def _sheet(tiles: list[dict[str, np.ndarray]], path: Path) -> None:
    """A few pictures a sample: as it is, with the truth, with each model's label map."""
    pictures, maps, captions = [], [], []
    for tile in tiles:
        pictures += [tile["picture"]] * len(tile)
        maps += [None, *(tile[name] for name in tile if name != "picture")]
        captions += [CAPTIONS[name] for name in tile]
    contact_sheet(pictures, maps, captions, path, columns=2 * len(tiles[0]))
