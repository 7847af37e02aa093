"""A user's own pictures with masks, as rows that the grounding module learns from.

They are the folder of `triplets.labels`: each picture cut to the proportions of the generated ones
and resized, its classes asked for in a composed prompt. The stage `triplets` writes the pictures
(LABELLED) and judges the masks; the stage `grounding_model` encodes them. They are never of the
sim set, nor of the validation. Not here: the layouts on disk (`ml.datasets`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml.datasets import open_source
from ml.datasets.matching import matches, table_of
from ml.datasets.own import open_own
from ml.datasets.photos import PhotoFiles
from ml.grounding.prompting import compose_prompt
from ml.images.crops import cut
from ml.images.facts import picture_facts
from ml.images.leaks import Thumbs, find_overlap, small, thumbnails
from ml.images.overlays import IGNORED
from ml.images.png import encode_png
from ml.images.run_lengths import encode_rle
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.files import sha256_file, sha256_json
from ml.store.making import write_shards
from ml.store.schemas import LABELLED
from ml.store.shards import split
from ml.store.sidecars import OWN
from ml.words.phrases import phrase
from ml.words.text_limit import TextLimit, find_limit
from ml.words.vocabulary import Vocabulary, load_vocabulary

SHARD_SIZE = 64
"""Pictures a shard."""
SHOWN = 3


def open_labels(params: Params, workspace: Workspace) -> PhotoFiles:
    """The pictures that `triplets.labels` names. Raises ValueError when there is no such folder, or
    its layout is none that is known."""
    named = params.triplets.labels
    assert named is not None, "asked only where labels are set"
    root = Path(workspace.model(named))
    if not root.is_dir():
        raise ValueError(
            f"triplets.labels: no folder {root}; expected your own pictures with masks there "
            "(docs/own-labels.md), or null to go without"
        )
    return open_own(root, "labels", params.triplets.labels_format, "triplets.labels_format")


def labels_digest(params: Params, workspace: Workspace) -> str:
    """Hex sha256 of everything that is read of the folder: lists, masks, and the pictures' bytes,
    which are a user's few."""
    photos = open_labels(params, workspace)
    pictures = [sha256_file(path) for path in photos.photo_files()]
    return sha256_json({"data": photos.digest(), "pictures": pictures})


def check_labels(photos: PhotoFiles, vocabulary: Vocabulary) -> dict[str, int]:
    """The vocabulary's classes that the labels show -> in how many pictures, all looked through.

    Raises ValueError for what `ml.datasets.checks.check_photos` refuses, and for masks of classes
    that the vocabulary lists as unseen.
    """
    photos.check(photos.keys, "any", vocabulary)
    known = matches(photos.names, vocabulary)
    shown = Counter(
        known[label] for key in photos.keys for label in photos.labelled(key)[1] if label in known
    )
    if unseen := [name for name in vocabulary.unseen if name in shown]:
        raise ValueError(
            f"{photos.title}: {shown[unseen[0]]} of {len(photos.keys)} pictures have masks of "
            f"{unseen[0]!r}, which vocabulary {vocabulary.name!r} lists under `unseen:`; expected "
            "classes whose masks may teach. If yours shall, move "
            f"{', '.join(map(repr, unseen))} to a list `labelled:` in the vocabulary's file (then "
            "it counts as seen); if not, take those masks out"
        )
    if missing := [name for name in vocabulary.labelled if name not in shown]:
        raise ValueError(
            f"vocabulary {vocabulary.name!r} lists {', '.join(map(repr, missing))} under "
            f"`labelled:`, and {photos.title} has no mask of it, only of "
            f"{', '.join(map(repr, shown))}: add masks, or list it under `unseen:`"
        )
    return dict(shown)


def benchmark_thumbs(params: Params, workspace: Workspace) -> Thumbs:
    """Of the benchmark's pictures and their mirror images; none where there is no benchmark.

    Read from the data set itself: the stage `benchmark` is no input of `triplets`.
    """
    if params.benchmark.source == "none":
        return thumbnails([])
    root = params.benchmark.root and workspace.model(params.benchmark.root)
    pictures = open_source(params.benchmark, "test", root)
    vocabulary = load_vocabulary(params.vocabulary)
    shown = (small(sample.image) for sample in pictures.read(pictures.keys, vocabulary))
    return thumbnails(shown, mirrored=True)


def write_labelled(
    params: Params,
    workspace: Workspace,
    vocabulary: Vocabulary,
    size: tuple[int, int],
    folder: Path,
    recipe: str,
) -> tuple[PhotoFiles, dict[str, int]]:
    """Writes the pictures as LABELLED shards in `folder`/labelled; returns where they come from and
    the rows by file name, as a manifest of `folder` has them.

    size: (H,W) of the generated pictures. Raises ValueError for what `check_labels` refuses.
    """
    photos = open_labels(params, workspace)
    check_labels(photos, vocabulary)
    maker = LabelledMaker(params, workspace, vocabulary, photos, size)
    plan = split(list(enumerate(photos.keys)), SHARD_SIZE)
    rows = write_shards(folder / OWN, recipe, plan, maker, LABELLED)
    return photos, {f"{OWN}/{name}": count for name, count in rows.items()}


@dataclass
class LabelledMaker:
    """Turns (number, key) of a user's pictures into rows of LABELLED."""

    params: Params
    workspace: Workspace
    vocabulary: Vocabulary
    photos: PhotoFiles
    size: tuple[int, int]

    @cached_property
    def limit(self) -> TextLimit | None:
        diffusion = self.params.diffusion
        return find_limit(
            self.workspace.model(diffusion.model), diffusion.revision, diffusion.t5_tokens
        )

    @cached_property
    def benchmark(self) -> Thumbs:
        return benchmark_thumbs(self.params, self.workspace)

    @cached_property
    def known(self) -> dict[int, str]:
        return matches(self.photos.names, self.vocabulary)

    @cached_property
    def table(self) -> np.ndarray:
        return table_of(self.known, self.vocabulary)

    def __call__(self, group: Sequence[tuple[int, str]]) -> pd.DataFrame:
        rows, thumbs = [], []
        for number, key in group:
            _, whole = self.photos.picture(key)
            rows.append(self._row(number, key, whole))
            thumbs.append(small(whole))
        leaked = set(find_overlap(thumbs, self.benchmark))
        overlaps = [place in leaked for place in range(len(rows))]
        return pd.DataFrame(rows).assign(benchmark_overlap=overlaps)

    def _row(self, number: int, key: str, whole: np.ndarray) -> dict[str, Any]:
        """One row of LABELLED but for `benchmark_overlap`. whole: the picture, uint8 (H,W,3)."""
        truth = self.photos.truth(key)
        label = self.table[truth]
        image, label_map = cut(whole, label, self.size, (label > 0) & (label != IGNORED))
        there = set(np.unique(label).tolist())
        entities = [n for n in self.vocabulary.classes if self.vocabulary.label(n) in there]
        masks = [label_map == self.vocabulary.label(name) for name in entities]
        words = [self.vocabulary.words[name][0] for name in entities]
        text = compose_prompt(words) if words else ""
        ignored = label_map == IGNORED
        facts = picture_facts(image)
        names = self.photos.names
        return {
            "key": f"own-{number:06d}",
            "source": key,
            "text": text,
            "entities": entities,
            "words": words,
            "phrases": [phrase(word) for word in words],
            "strangers": sorted(
                names[n] for n in np.unique(truth).tolist() if n in names and n not in self.known
            ),
            "seed": int(str(facts["sha256"])[:8], 16),  # a picture is noised alike wherever it lies
            "image": encode_png(image),
            "rles": [encode_rle(mask) if mask.any() else "" for mask in masks],
            "areas": [float(mask.mean()) for mask in masks],
            "ignored": encode_rle(ignored) if ignored.any() else "",
            "too_many_words": bool(words and self.limit and self.limit.fault(text)),
            **facts,
        }
