"""The drawn world as a source of labelled pictures: nothing on disk, every scene from its key.

Its test part is the frozen benchmark of 400 scenes. Its train part has no end: `choose` deals
classes to as many scenes as are wanted. Not here: the drawing (`ml.drawn_world`).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ml.datasets.matching import table_of
from ml.datasets.protocol import Sample
from ml.drawn_world.benchmark import (
    BENCHMARK_SIZE,
    benchmark_scene,
    benchmark_scenes,
    check_benchmark,
)
from ml.drawn_world.world import CLASSES, SEED_RANGES, Scene, draw_scene, scene_seed
from ml.images.leaks import find_overlap, thumbnails
from ml.images.png import encode_png
from ml.words.vocabulary import Vocabulary

MOST_OBJECTS = 3
"""In a scene."""


class DrawnWorld:
    """A part of the drawn world; see `protocol.LabelledPictures` for what it offers.

    A key holds all that a scene is drawn from: the purpose and the index of its seed, and its
    classes unless the benchmark's design decides on them ("benchmark-000007",
    "real_bound-000007:dog+cat").
    """

    sizes_differ = False

    def __init__(self, root: Path, part: str):
        """root: is not looked at. part: "test" or "train"."""
        self.part = part
        self.keys: Sequence[str] = (
            [f"benchmark-{index:06d}" for index in range(BENCHMARK_SIZE)] if part == "test" else []
        )

    def labelled_classes(self, vocabulary: Vocabulary) -> tuple[str, ...]:
        return tuple(name for name in vocabulary.classes if name in CLASSES)

    def choose(self, counts: Sequence[int], vocabulary: Vocabulary, seed: int) -> list[str]:
        return [
            f"real_bound-{index:06d}:{'+'.join(classes)}"
            for index, classes in enumerate(scene_classes(counts, vocabulary, seed))
        ]

    def check(self, keys: Sequence[str], subset: str, vocabulary: Vocabulary | None = None) -> None:
        """Of the test part, that its scenes are the published ones (1 s)."""
        if vocabulary is not None:
            label_table(vocabulary)
        if self.part == "test":
            check_benchmark(self.scene(key) for key in self.keys)

    def read(self, keys: Sequence[str], vocabulary: Vocabulary) -> Iterator[Sample]:
        table = label_table(vocabulary)
        for key in keys:
            scene = self.scene(key)
            yield Sample(
                key,
                encode_png(scene.image),
                scene.image,
                table[scene.label_map()],
                scene.caption,
                tuple(name for name in scene.classes if name in vocabulary.classes),
            )

    def facts(self) -> dict[str, str | int | None]:
        return {}

    def digest(self) -> None:
        return None

    def scene(self, key: str) -> Scene:
        """The scene of a key, drawn."""
        place, _, classes = key.partition(":")
        purpose, _, number = place.partition("-")
        if not classes:
            return benchmark_scene(int(number))
        return draw_scene(scene_seed(purpose, int(number)), classes=classes.split("+"))


def label_table(vocabulary: Vocabulary) -> np.ndarray:
    """uint8 (256,): label of the drawn world -> the vocabulary's; see `matching.table_of`.

    Classes match by their exact names. Raises ValueError when the two share none.
    """
    known = {
        label: name for label, name in enumerate(CLASSES, start=1) if name in vocabulary.classes
    }
    if not known:
        raise ValueError(
            f"vocabulary {vocabulary.name!r} lists none of the benchmark's classes: expected some "
            f"of {', '.join(CLASSES)}, got {', '.join(vocabulary.classes)}. Use these names, and "
            "`words:` for other words"
        )
    return table_of(known, vocabulary)


def label_maps(scenes: Sequence[Scene], vocabulary: Vocabulary) -> np.ndarray:
    """The true labels in the vocabulary's numbers: uint8 (N,64,64)."""
    table = label_table(vocabulary)
    return np.stack([table[scene.label_map()] for scene in scenes])


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


def benchmark_copies(images: np.ndarray) -> list[int]:
    """Which of the scenes uint8 (N,64,64,3) are, or nearly are, scenes of the benchmark.

    The seeds are disjoint, so this has never found one; it is what makes the bound's claim sound
    should somebody change the seeds.
    """
    return find_overlap(images, thumbnails(scene.image for scene in benchmark_scenes()))
