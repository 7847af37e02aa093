"""Stage `real_bound`: the same segmenter trained on as many real pictures with true labels.

What it scores above `segmenter` is what the synthetic pictures and labels cost. "Real" is what the
benchmark is made of: drawn scenes, or the training part of the real data (VOC's trainaug, COCO's
train2017, a folder's train.txt). Without one there is no bound, and the facts say why. Here: which
pictures those are. Not here: the training (`ml.pipeline.stages.segmenter.fit`).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from PIL import Image

from ml.compute import processes
from ml.datasets import LabelledPhotos, NoSuchPart, check, described, open_source, read
from ml.drawn_world.benchmark import benchmark_scenes
from ml.drawn_world.world import CLASSES, SEED_RANGES, Scene, draw_scene, scene_seed
from ml.images.leaks import find_overlap, small
from ml.images.overlays import IGNORED
from ml.images.png import decode_png, encode_png
from ml.pipeline.stages.benchmark import label_table
from ml.pipeline.stages.segmenter import accepted_rows, fit
from ml.pipeline.table import Output
from ml.pipeline.workspace import Workspace
from ml.segmenters.pictures import is_stored, open_encoded, store_encoded
from ml.settings.params import Params
from ml.store.shards import iter_shards, split
from ml.words.vocabulary import Vocabulary, load_vocabulary

MOST_OBJECTS = 3  # that the drawn world puts into a scene
GROUP = 100  # photographs decoded at once


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Trains within the stage's folder; goes on from `.progress/` after a kill.

    Without a training part nothing is trained: facts are {"model": False, "why"}. Raises ValueError
    when the vocabulary has a class that the drawn world cannot draw, or when the real data is not
    what it should be.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    if params.benchmark.source == "none":
        return Output(facts={"model": False, "why": "benchmark.source is none: no real pictures"})
    if params.benchmark.source == "drawn":
        images, labels, dropped = drawn_pictures(params, workspace, vocabulary)
        facts = fit("real_bound", images, labels, params, workspace)
        return Output(facts=facts | {"left_out_as_benchmark_copies": dropped})
    try:
        photos = open_source(params.benchmark, "train", workspace.model(params.benchmark.root))
    except NoSuchPart as absent:
        return Output(facts={"model": False, "why": str(absent)})
    keys = sample_keys(photos.keys, len(accepted_rows(workspace)), params.seed)
    file = workspace.folder("real_bound") / ".progress" / "pictures.arrow"

    def store() -> None:
        if not is_stored(file):
            check(photos, keys, params.benchmark.subset, vocabulary)
            whole = params.segmenter.crop_size is None  # else squares are cut out of any size
            store_encoded(file, photo_frames(photos, keys, vocabulary, workspace, whole))

    processes.on_main(store)
    images, labels = open_encoded(file)
    left_out = len(keys) - len(images)
    return Output(
        facts=fit("real_bound", images, labels, params, workspace)
        | {
            "name": described(photos),
            "listed": len(photos.keys),
            "left_out_as_benchmark_copies": left_out,
        }
    )


def drawn_pictures(
    params: Params, workspace: Workspace, vocabulary: Vocabulary
) -> tuple[np.ndarray, np.ndarray, int]:
    """(pictures, label maps, how many were left out as copies of benchmark pictures)."""
    counts = [len(entities) for entities in accepted_rows(workspace).entities]
    scenes = [
        draw_scene(scene_seed("real_bound", index), classes=classes)
        for index, classes in enumerate(scene_classes(counts, vocabulary, params.seed))
    ]
    images = np.stack([scene.image for scene in scenes])
    kept = np.setdiff1d(np.arange(len(scenes)), benchmark_copies(images))
    return images[kept], label_maps(scenes, vocabulary)[kept], len(scenes) - len(kept)


def photo_frames(
    photos: LabelledPhotos,
    keys: Sequence[str],
    vocabulary: Vocabulary,
    workspace: Workspace,
    one_size: bool,
) -> Iterator[pd.DataFrame]:
    """The photographs of `keys` without those that are copies of benchmark pictures: frames of a
    hundred with encoded bytes, columns image and label. one_size: that of the synthetic pictures;
    else the photographs are as they are."""
    height, width = decode_png(
        next(iter_shards(workspace.folder("synthetic_dataset"), ["image"])).image[0]
    ).shape[:2]
    benchmark = [
        small(decode_png(data))
        for shard in iter_shards(workspace.folder("benchmark"), ["image"])
        for data in shard.image
    ]
    for group in split(keys, GROUP):
        rows, thumbs = [], []
        for sample in read(photos, group, vocabulary):
            data, label = sample.data, sample.label
            if one_size:
                image, label = fit_into(sample.image, label, height, width)
                data = encode_png(image)
            rows.append({"image": data, "label": encode_png(label)})
            thumbs.append(small(sample.image))
        yield pd.DataFrame(rows, columns=["image", "label"]).drop(find_overlap(thumbs, benchmark))


def sample_keys(keys: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of the keys without repetition, chosen by the seed, in the keys' order; all of them
    where there are fewer."""
    rng = np.random.default_rng([seed, SEED_RANGES["real_bound"].start])
    chosen = rng.permutation(len(keys))[:count]
    return [keys[place] for place in sorted(chosen)]


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
    framed[:high, :wide] = Image.fromarray(image).resize((wide, high), Image.Resampling.BILINEAR)
    marked[:high, :wide] = Image.fromarray(label).resize((wide, high), Image.Resampling.NEAREST)
    return framed, marked


def scene_classes(
    counts: Sequence[int], vocabulary: Vocabulary, seed: int
) -> list[tuple[str, ...]]:
    """For each picture, as many distinct classes as it should show (at most three), balanced.

    Classes are dealt like cards: every class once before any comes again, so that their numbers
    differ by two at most. Raises ValueError for a class that the drawn world cannot draw.
    """
    unknown = sorted(set(vocabulary.classes) - set(CLASSES))
    if unknown:
        raise ValueError(
            f"the drawn world cannot draw {unknown} of vocabulary "
            f"{vocabulary.name!r}, so there is no real bound for it: expected "
            f"classes out of {', '.join(CLASSES)}"
        )
    rng = np.random.default_rng([seed, SEED_RANGES["real_bound"].start])
    cards: list[str] = []
    dealt = []
    for count in counts:
        hand: list[str] = []
        for _ in range(min(count, MOST_OBJECTS, len(vocabulary.classes))):
            if not set(cards) - set(hand):
                cards += [str(name) for name in rng.permutation(vocabulary.classes)]
            card = next(name for name in cards if name not in hand)
            cards.remove(card)
            hand.append(card)
        dealt.append(tuple(hand))
    return dealt


def label_maps(scenes: Sequence[Scene], vocabulary: Vocabulary) -> np.ndarray:
    """The true labels in the vocabulary's numbers: uint8 (N,64,64)."""
    table = label_table(vocabulary)
    return np.stack([table[scene.label_map()] for scene in scenes])


def benchmark_copies(images: np.ndarray) -> list[int]:
    """Which of the scenes uint8 (N,64,64,3) are, or nearly are, benchmark pictures.

    The seeds are disjoint, so this has never found one; it is what makes the bound's claim sound
    should somebody change the seeds.
    """
    return find_overlap(images, [scene.image for scene in benchmark_scenes()])
