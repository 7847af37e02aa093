"""Stage `benchmark`: the test pictures, with label maps in the vocabulary's labels.

Reads: the data set that `benchmark.source` names, if any. Writes: shards in the BENCHMARK schema,
contact_sheet.jpg. Settings: vocabulary, benchmark.source, .root, .subset. Not here: the data sets
(`ml.datasets`), or what is measured on them.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml.datasets import open_source
from ml.datasets.protocol import Sample
from ml.images.contact_sheet import contact_sheet, spread
from ml.images.facts import difference_hash, pixel_digest
from ml.images.overlays import IGNORED
from ml.images.png import decode_png, encode_png
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.making import write_shards
from ml.store.schemas import BENCHMARK
from ml.store.shards import iter_shards, read_shards, split
from ml.words.vocabulary import Vocabulary, load_vocabulary

SHARD_SIZE = 100
"""Pictures a shard; 400 drawn scenes are 2 MB in all, 100 photographs 16 MB."""
SHEET_PICTURES = 24


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes the shards and the contact sheet; for source none one empty shard and no sheet.

    Raises ValueError when the vocabulary shares no class with the data set or the data is not what
    it should be, RuntimeError when the drawn scenes are not the published ones.
    """
    vocabulary, folder = load_vocabulary(params.vocabulary), workspace.folder("benchmark")
    if params.benchmark.source == "none":
        empty = pd.DataFrame(columns=BENCHMARK.names, dtype=object)
        rows = write_shards(folder, recipe, [[]], lambda _: empty, BENCHMARK)
        return Output(
            rows=rows,
            facts={
                "pictures": 0,
                "labelled_classes": [],
                "why": "benchmark.source is none: no real pictures with masks were given",
            },
        )
    root = params.benchmark.root and workspace.model(params.benchmark.root)
    pictures = open_source(params.benchmark, "test", root)
    pictures.check(pictures.keys, params.benchmark.subset, vocabulary)
    rows = write_shards(
        folder,
        recipe,
        split(pictures.keys, SHARD_SIZE),
        lambda keys: pd.DataFrame(list(map(_row, pictures.read(keys, vocabulary)))),
        BENCHMARK,
    )
    facts = _facts(folder, vocabulary, pictures.labelled_classes(vocabulary))
    return Output(rows=rows, facts=facts | pictures.facts())


def _facts(folder: Path, vocabulary: Vocabulary, labelled: Sequence[str]) -> dict[str, Any]:
    """Counts over the written shards, a shard at a time; leaves the contact sheet."""
    entities, ignored = [], []
    for shard in iter_shards(folder, ["entities", "label"]):
        entities += list(shard.entities)
        ignored += [float((decode_png(label) == IGNORED).mean()) for label in shard.label]
    by_class = Counter(name for names in entities for name in names)
    _sheet(folder)
    return {
        "pictures": len(entities),
        "one_object": sum(len(names) == 1 for names in entities),
        "two_objects": sum(len(names) == 2 for names in entities),
        "pictures_by_class": {name: by_class[name] for name in vocabulary.classes},
        "classes_without_pictures": sum(by_class[name] == 0 for name in vocabulary.classes),
        "labelled_classes": list(labelled),
        "ignored_share": float(np.mean(ignored)),
    }


def _row(sample: Sample) -> dict[str, object]:
    """A row of the BENCHMARK schema."""
    return {
        "key": sample.key,
        "text": sample.text,
        "entities": list(sample.entities),
        "image": sample.data,
        "label": encode_png(sample.label),
        "dhash": difference_hash(sample.image),
        "sha256": pixel_digest(sample.image),
    }


def _sheet(folder: Path) -> None:
    keys = read_shards(folder, ["key"]).key
    wanted = set(keys.iloc[spread(len(keys), SHEET_PICTURES)])
    shown = pd.concat(
        shard[shard.key.isin(wanted)]
        for shard in iter_shards(folder, ["key", "text", "image", "label"])
    )
    contact_sheet(
        [decode_png(data) for data in shown.image],
        [decode_png(data) for data in shown.label],
        list(shown.text),
        folder / "contact_sheet.jpg",
    )
