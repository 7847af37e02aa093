"""Stage `real_bound`: the same segmenter trained on as many drawn scenes with true labels.

What it scores above `segmenter` is what the synthetic pictures and labels cost. Here: which scenes
those are. Not here: the training (`ml.stages.segmenter.fit`).
"""

from collections.abc import Sequence

import numpy as np

from ml.microworld.benchmark import benchmark_scenes, find_overlap
from ml.microworld.world import CLASSES, SEED_RANGES, Scene, draw_scene, scene_seed
from ml.params import Params
from ml.stages import Output, Workspace
from ml.stages.benchmark import label_table
from ml.stages.segmenter import accepted_rows, fit
from ml.vocabulary import Vocabulary, load_vocabulary

MOST_OBJECTS = 3  # that the drawn world puts into a scene


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Trains within the stage's folder; goes on from `.progress/` after a kill.

    Raises ValueError when the vocabulary has a class that the drawn world cannot draw.
    """
    vocabulary = load_vocabulary(params.vocabulary)
    counts = [len(entities) for entities in accepted_rows(workspace).entities]
    scenes = [
        draw_scene(scene_seed("real_bound", index), classes=classes)
        for index, classes in enumerate(scene_classes(counts, vocabulary, params.seed))
    ]
    images = np.stack([scene.image for scene in scenes])
    kept = np.setdiff1d(np.arange(len(scenes)), benchmark_copies(images))
    labels = label_maps(scenes, vocabulary)
    facts = fit("real_bound", images[kept], labels[kept], params, workspace)
    return Output(facts=facts | {"left_out_as_benchmark_copies": len(scenes) - len(kept)})


def scene_classes(
    counts: Sequence[int], vocabulary: Vocabulary, seed: int
) -> list[tuple[str, ...]]:
    """For each picture, as many distinct classes as it should show (at most three), balanced.

    Classes are dealt like cards: every class once before any comes again, so that their numbers
    differ by two at most. Raises ValueError for a class that the drawn world cannot draw.
    """
    unknown = sorted(set(vocabulary.classes) - set(CLASSES))
    if unknown:
        raise ValueError(f"the drawn world cannot draw {unknown} of vocabulary "
                         f"{vocabulary.name!r}, so there is no real bound for it: expected "
                         f"classes out of {', '.join(CLASSES)}")
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
