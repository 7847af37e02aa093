"""What the checks judge of the benchmark: its rows, and its pixels beside the published ones."""

import hashlib

import numpy as np
import pandas as pd

from ml.pipeline.workspace import Workspace
from ml.quality.frames import Tables, facts, one_row
from ml.settings.params import Params
from ml.store.manifest import read_manifest
from ml.store.schemas import BENCHMARK
from ml.store.shards import iter_shards
from ml.words.vocabulary import Vocabulary, load_vocabulary


def benchmark_tables(params: Params, workspace: Workspace) -> Tables:
    """The benchmark as it is on disk, beside what it should be.

    Drawn scenes are compared with the published ones, drawn again with the vocabulary's labels
    (2 s); photographs with the digests of what was read, and in number with the split's list.
    """
    made = read_manifest(workspace.folder("benchmark"), verify=False).facts
    if params.benchmark.source == "none":  # an empty set, as asked for: one row that says so
        return {
            "rows": one_row(
                key="(no real benchmark)",
                pixels="",
                published="",
                label_fits=True,
                labels_known=True,
                blank=False,
            ),
            "classes": one_row(**{"class": "(no real benchmark)", "missing": ""}),
            "total": one_row(rows=made["pictures"], published=0, repeated_share=0.0),
        }
    rows = facts(workspace, "benchmark", BENCHMARK)
    rows = pd.concat([rows, benchmark_pixels(params, workspace)], axis=1)
    expected = made.get("listed")
    if params.benchmark.source == "drawn":
        published = drawn_digests(load_vocabulary(params.vocabulary))
        expected = len(published)
        rows["published"] = (published + [""] * len(rows))[: len(rows)]
    elif params.benchmark.subset == "official" and made["official_pictures"] is not None:
        expected = made["official_pictures"]
    present = set(rows["entities"].explode())
    missing = ["" if name in present else name for name in made["labelled_classes"]]
    return {
        "rows": rows,
        "classes": pd.DataFrame({"class": made["labelled_classes"], "missing": missing}),
        "total": one_row(
            rows=len(rows),
            published=expected,
            repeated_share=float(rows["sha256"].duplicated().mean()),
        ),
    }


def benchmark_pixels(params: Params, workspace: Workspace) -> pd.DataFrame:
    """Per benchmark picture, from its pixels, a shard at a time. `pixels` is of picture and label
    where those are drawn, else of the picture, with what was read as `published`."""
    from ml.images.facts import grey_levels, pixel_digest
    from ml.images.overlays import IGNORED
    from ml.images.png import decode_png

    vocabulary, found = load_vocabulary(params.vocabulary), []
    drawn = params.benchmark.source == "drawn"
    columns = ["entities", "image", "label", "sha256"]
    for shard in iter_shards(workspace.folder("benchmark"), columns):
        for row in shard.itertuples():
            image, label = decode_png(row.image), decode_png(row.label)
            present = set(np.unique(label).tolist()) - {0, IGNORED}
            named = {vocabulary.label(e) for e in row.entities}
            found.append(
                {
                    "pixels": pair_digest(image, label) if drawn else pixel_digest(image),
                    "published": row.sha256,
                    "label_fits": label.shape == image.shape[:2],
                    "labels_known": present == named,
                    "blank": float(grey_levels(image).std()) < params.triplets.min_std,
                }
            )
    return pd.DataFrame(found)


def drawn_digests(vocabulary: Vocabulary) -> list[str]:
    """`pair_digest` of every published scene, with the labels of the vocabulary."""
    from ml.drawn_world.benchmark import benchmark_scenes
    from ml.drawn_world.world import CLASSES
    from ml.images.overlays import IGNORED

    relabel = np.full(256, IGNORED, np.uint8)  # a class the vocabulary does not list is ignored
    relabel[0] = 0
    for name in CLASSES:
        if name in vocabulary.classes:
            relabel[CLASSES.index(name) + 1] = vocabulary.label(name)
    return [pair_digest(scene.image, relabel[scene.label_map()]) for scene in benchmark_scenes()]


def pair_digest(image: np.ndarray, label: np.ndarray) -> str:
    """Hex sha256 of a picture uint8 (H,W,3) and its label map uint8 (H,W)."""
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes())
    digest.update(np.ascontiguousarray(label).tobytes())
    return digest.hexdigest()
