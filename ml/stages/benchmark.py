"""Stage `benchmark`: the frozen test pictures with label maps in the labels of the vocabulary.

Here: names become labels, scenes become shards. Not here: which scenes they are, and the digest
that says they are unchanged (`ml.microworld.benchmark`), or what is measured on them.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ml.microworld.benchmark import benchmark_scenes
from ml.microworld.world import CLASSES, Scene
from ml.params import Params
from ml.pictures import (
    IGNORED,
    contact_sheet,
    decode_png,
    difference_hash,
    encode_png,
    pixel_digest,
    spread,
)
from ml.schemas import BENCHMARK
from ml.shards import iter_shards, split, write_shards
from ml.stages import Output, Workspace
from ml.vocabulary import Vocabulary, load_vocabulary

SHARD_SIZE = 100
"""Pictures a shard; 400 drawn scenes are 2 MB in all."""
SHEET_PICTURES = 24


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes shards in the BENCHMARK schema and a contact sheet.

    Raises ValueError when the vocabulary shares no class with the benchmark, RuntimeError when the
    drawn scenes are not the published ones.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    table = label_table(vocabulary)
    folder = workspace.folder("benchmark")
    plan = split(list(enumerate(benchmark_scenes())), SHARD_SIZE)
    rows = write_shards(folder, recipe, plan, lambda group: _rows(group, vocabulary, table),
                        BENCHMARK)
    pictures = pd.concat(iter_shards(folder), ignore_index=True)
    _sheet(folder, pictures)
    by_class = Counter(name for names in pictures.entities for name in names)
    ignored = [float((decode_png(label) == IGNORED).mean()) for label in pictures.label]
    return Output(rows=rows, facts={
        "pictures": len(pictures),
        "one_object": int((pictures.entities.map(len) == 1).sum()),
        "two_objects": int((pictures.entities.map(len) == 2).sum()),
        "pictures_by_class": {name: by_class[name] for name in vocabulary.classes},
        "classes_without_pictures": sum(by_class[name] == 0 for name in vocabulary.classes),
        "ignored_share": float(np.mean(ignored)),
    })


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
    return pd.DataFrame([
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
    ])


def _sheet(folder, pictures: pd.DataFrame) -> None:
    shown = pictures.iloc[spread(len(pictures), SHEET_PICTURES)]
    contact_sheet([decode_png(data) for data in shown.image],
                  [decode_png(data) for data in shown.label],
                  list(shown.text), folder / "contact_sheet.jpg")
