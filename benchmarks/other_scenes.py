"""`python -m benchmarks.other_scenes --profile micro`: Protocol II on pictures that nothing knew.

The micro segmenter's settings were chosen by scores on the frozen benchmark. Both models of a
finished run are scored on it and on scenes of the same design and other seeds, by which nothing was
chosen.
"""

import sys

import numpy as np

from ml.arguments import add_profile, add_root, make_parser, number
from ml.datasets.drawn import label_maps
from ml.drawn_world.benchmark import BENCHMARK_SIZE, benchmark_classes, benchmark_scenes
from ml.drawn_world.world import Scene, draw_scene, scene_seed
from ml.errors import exit_path
from ml.metrics.bootstrap import bootstrap_interval
from ml.metrics.iou import confusions
from ml.metrics.protocol_two import COLUMNS
from ml.pipeline.stages.benchmark_scores import MODELS, statistics
from ml.pipeline.workspace import Workspace
from ml.segmenters import load_segmenter
from ml.segmenters.prediction import predict_each
from ml.settings.profile import load_params
from ml.words.vocabulary import load_vocabulary

RESAMPLES = 1000


def other_scenes(rounds: int) -> list[Scene]:
    """The benchmark's design so many times over, of seeds of their own."""
    return [
        draw_scene(scene_seed("unlooked", index), classes=benchmark_classes(index % BENCHMARK_SIZE))
        for index in range(rounds * BENCHMARK_SIZE)
    ]


def main() -> None:
    parser = make_parser("python -m benchmarks.other_scenes", __doc__)
    add_profile(parser)
    add_root(parser)
    parser.add_argument("--rounds", type=number(int, 1, 1000), default=5, help="of 400 scenes")
    chosen = parser.parse_args()
    params = load_params(chosen.profile)
    workspace, vocabulary = (
        Workspace(chosen.root, params.profile),
        load_vocabulary(params.vocabulary),
    )
    sets = {"the benchmark": list(benchmark_scenes()), "other scenes": other_scenes(chosen.rounds)}
    print(f"| model | pictures | {' | '.join(COLUMNS)} |")
    print("|---|---|" + "---|" * len(COLUMNS))
    for name, stage in MODELS.items():
        model = load_segmenter(workspace.folder(stage) / "model")
        for title, scenes in sets.items():
            found = predict_each(model, [scene.image for scene in scenes])
            counts = confusions(found, label_maps(scenes, vocabulary), len(vocabulary.classes))
            print(
                f"| {name} | {len(scenes)} of {title} | {' | '.join(figures(counts, vocabulary))} |"
            )


def figures(counts: np.ndarray, vocabulary) -> list[str]:
    """Each column with its 95 % interval over pictures. counts: (pictures, n+1, n+1)."""
    shown = []
    for column in COLUMNS:
        statistic = statistics(vocabulary)[column]
        low, high = bootstrap_interval(statistic, counts, RESAMPLES, 0)
        shown.append(f"{float(statistic(counts.sum(0))):.1f} [{low:.1f}, {high:.1f}]")
    return shown


if __name__ == "__main__":
    sys.exit(exit_path(main)())
