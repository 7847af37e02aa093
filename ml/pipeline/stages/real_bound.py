"""Stage `real_bound`: the segmenter of `segmenter`, trained on as many pictures with true labels.

What it scores above `segmenter` is what the synthetic pictures and labels cost. Its pictures are of
the kind that the benchmark is made of, for which "real" stands: photographs (VOC's trainaug, COCO's
train2017, a folder's train.txt), or drawn scenes. Without a training part there is no bound.

Reads: `synthetic_dataset` (how many pictures), `benchmark` (whose pictures are left out), the
training part of the data set. Writes: model/, curve.csv, contact_sheet.jpg. Settings: seed,
vocabulary, segmenter, benchmark.source, .root, .subset. Not here: the training
(`ml.pipeline.stages.segmenter.fit`).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from ml.compute import processes
from ml.datasets import open_source
from ml.datasets.protocol import LabelledPictures, NoSuchPart
from ml.images.leaks import find_overlap, small
from ml.images.overlays import IGNORED
from ml.images.png import decode_png, encode_png
from ml.pipeline.stages.segmenter import accepted_rows, fit
from ml.pipeline.stored_thumbs import stored_thumbs
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.segmenters.pictures import is_stored, open_encoded, store_encoded
from ml.settings.params import Params
from ml.store.manifest import PROGRESS
from ml.store.shards import iter_shards, split
from ml.words.vocabulary import Vocabulary, load_vocabulary

GROUP = 100  # pictures decoded at once


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Trains within the stage's folder; goes on from `.progress/` after a kill.

    Without a training part nothing is trained: facts are {"model": False, "why"}. Raises ValueError
    when the vocabulary has a class that the drawn world cannot draw, or when the data set is not
    what it should be.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    root = params.benchmark.root and workspace.model(params.benchmark.root)
    try:
        pictures = open_source(params.benchmark, "train", root)
    except NoSuchPart as absent:
        return Output(facts={"model": False, "why": str(absent)})
    counts = [len(entities) for entities in accepted_rows(workspace).entities]
    keys = pictures.choose(counts, vocabulary, params.seed)
    file = workspace.folder("real_bound") / PROGRESS / "pictures.arrow"

    def store() -> None:
        if not is_stored(file):
            pictures.check(keys, params.benchmark.subset, vocabulary)
            # squares are cut out of any size, whole pictures must be of one
            one_size = pictures.sizes_differ and params.segmenter.crop_size is None
            store_encoded(file, picture_frames(pictures, keys, vocabulary, workspace, one_size))

    processes.on_main(store)
    images, labels = open_encoded(file)
    left_out = len(keys) - len(images)
    facts = fit("real_bound", images, labels, params, workspace)
    named = {name: value for name, value in pictures.facts().items() if name in ("name", "listed")}
    return Output(facts=facts | named | {"left_out_as_benchmark_copies": left_out})


def picture_frames(
    pictures: LabelledPictures,
    keys: Sequence[str],
    vocabulary: Vocabulary,
    workspace: Workspace,
    one_size: bool,
) -> Iterator[pd.DataFrame]:
    """The pictures of `keys` without those that are copies of benchmark pictures: frames of a
    hundred with encoded bytes, columns image and label.

    one_size: scaled into the size of the synthetic pictures; else the pictures are as they are.
    """
    height, width = decode_png(
        next(iter_shards(workspace.folder("synthetic_dataset"), ["image"])).image[0]
    ).shape[:2]
    benchmark = stored_thumbs(workspace)
    for group in split(keys, GROUP):
        rows, thumbs = [], []
        for sample in pictures.read(group, vocabulary):
            data, label = sample.data, sample.label
            if one_size:
                image, label = fit_into(sample.image, label, height, width)
                data = encode_png(image)
            rows.append({"image": data, "label": encode_png(label)})
            thumbs.append(small(sample.image))
        yield pd.DataFrame(rows, columns=["image", "label"]).drop(find_overlap(thumbs, benchmark))


def fit_into(
    image: np.ndarray, label: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """A photograph and its label map, scaled to fit into a frame: uint8 (height,width,3), (...).

    Proportions stay; what is left over at the right or bottom is black and ignored (255).
    """
    scale = min(height / image.shape[0], width / image.shape[1])
    high, wide = (max(1, round(side * scale)) for side in image.shape[:2])
    framed = np.zeros((height, width, 3), np.uint8)
    marked = np.full((height, width), IGNORED, np.uint8)
    scaled = Image.fromarray(image).resize((wide, high), Image.Resampling.BILINEAR)
    labels = Image.fromarray(label).resize((wide, high), Image.Resampling.NEAREST)
    framed[:high, :wide], marked[:high, :wide] = np.asarray(scaled), np.asarray(labels)
    return framed, marked
