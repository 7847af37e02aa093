"""Stage `benchmark`: the test pictures with label maps in the labels of the vocabulary.

Drawn scenes, or real photographs with masks that `benchmark:` names, or none. Here: names become
labels, pictures become shards, once. Not here: which scenes the drawn ones are and the digest that
says they are unchanged (`ml.drawn_world.benchmark`), the layouts on disk (`ml.datasets`), or what
is measured on them.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ml.datasets import LabelledPhotos, check, described, labelled_classes, open_source, read
from ml.drawn_world.benchmark import benchmark_scenes
from ml.drawn_world.world import CLASSES, Scene
from ml.images.contact_sheet import contact_sheet, spread
from ml.images.facts import difference_hash, pixel_digest
from ml.images.overlays import IGNORED
from ml.images.png import decode_png, encode_png
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.schemas import BENCHMARK
from ml.store.shards import iter_shards, read_shards, split, write_shards
from ml.words.vocabulary import Vocabulary, load_vocabulary

SHARD_SIZE = 100
"""Pictures a shard; 400 drawn scenes are 2 MB in all, 100 photographs 16 MB."""
SHEET_PICTURES = 24


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes shards in the BENCHMARK schema and a contact sheet; one empty shard for source none.

    Raises ValueError when the vocabulary shares no class with the benchmark or the real data is
    not what it should be, RuntimeError when the drawn scenes are not the published ones.
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
    if params.benchmark.source == "drawn":
        table = label_table(vocabulary)
        labelled: Sequence[str] = [name for name in vocabulary.classes if name in CLASSES]
        plan = split(list(enumerate(benchmark_scenes())), SHARD_SIZE)
        rows = write_shards(
            folder, recipe, plan, lambda group: _rows(group, vocabulary, table), BENCHMARK
        )
        return Output(rows=rows, facts=_facts(folder, vocabulary, labelled))
    photos = open_source(params.benchmark, "test", workspace.model(params.benchmark.root))
    check(photos, photos.keys, params.benchmark.subset, vocabulary)
    rows = write_shards(
        folder,
        recipe,
        split(photos.keys, SHARD_SIZE),
        lambda keys: _photo_rows(photos, keys, vocabulary),
        BENCHMARK,
    )
    facts = _facts(folder, vocabulary, labelled_classes(photos, vocabulary))
    return Output(
        rows=rows,
        facts=facts
        | {
            "name": described(photos),
            "listed": len(photos.keys),
            "official_pictures": photos.official,
        },
    )


def _facts(folder: Path, vocabulary: Vocabulary, labelled: Sequence[str]) -> dict:
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


def label_table(vocabulary: Vocabulary) -> np.ndarray:
    """uint8 (256,): world label -> vocabulary label. Background stays 0, 255 stays 255.

    A drawn class that the vocabulary does not list becomes 255: it is there in the picture, so
    calling it background would punish a segmenter for seeing it.
    """
    table = np.full(256, IGNORED, np.uint8)
    table[0] = 0
    known = [name for name in CLASSES if name in vocabulary.classes]
    if not known:
        raise ValueError(
            f"vocabulary {vocabulary.name!r} lists none of the benchmark's classes: expected some "
            f"of {', '.join(CLASSES)}, got {', '.join(vocabulary.classes)}. Use these names, and "
            "`words:` for other words"
        )
    for name in known:
        table[CLASSES.index(name) + 1] = vocabulary.label(name)
    return table


def _rows(
    group: Sequence[tuple[int, Scene]], vocabulary: Vocabulary, table: np.ndarray
) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "key": f"benchmark-{index:06d}",
                "text": scene.caption,
                "entities": [name for name in scene.classes if name in vocabulary.classes],
                "image": encode_png(scene.image),
                "label": encode_png(table[scene.label_map()]),
                "dhash": difference_hash(scene.image),
                "sha256": pixel_digest(scene.image),
            }
            for index, scene in group
        ]
    )


def _photo_rows(
    photos: LabelledPhotos, keys: Sequence[str], vocabulary: Vocabulary
) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "key": sample.key,
                "text": ", ".join(sample.entities),
                "entities": list(sample.entities),
                "image": sample.data,
                "label": encode_png(sample.label),
                "dhash": difference_hash(sample.image),
                "sha256": pixel_digest(sample.image),
            }
            for sample in read(photos, keys, vocabulary)
        ]
    )


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
