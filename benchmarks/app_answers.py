"""How long a person waits for each answer of the app.

    python -m benchmarks.app_answers [--profile micro] [--times 5]

Prints a Markdown row for each answer: the shortest time of several, the page's HTML included,
without the browser, and the shortest processor time, which a busy machine does not lengthen (with
OMP_NUM_THREADS=1 it is the time on an idle core). The models are opened before. `ml.app` promises
under two seconds at micro size on two cores.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ml.app import showing
from ml.app.browsing import EVERY, REJECTED, Sets
from ml.app.comparing import compare
from ml.app.downloads import write_coco, write_masks
from ml.app.drawing import draw
from ml.app.finding import find
from ml.app.models import Models
from ml.arguments import add_profile, add_root, number
from ml.errors import exit_path
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params

PROMPT = "a photograph of a dog and a cat"
FIVE = "dog, cat, bus, car, sofa"


def answers(models: Models, root: Path, profile: str) -> dict[str, Callable[[], object]]:
    """What is asked, by what a person would call it."""
    steps = models.params.diffusion.steps
    sets = Sets(models.workspace, models.vocabulary)

    def told(share: float, doing: str) -> None:
        """Nobody listens."""

    def drawn(count: int) -> str:
        return showing.drawn(draw(models, PROMPT, "dog, cat", 0, steps, count, told))

    picture = draw(models, PROMPT, "dog, cat", 0, steps, 1, told)[0].picture
    buffer = io.BytesIO()
    Image.fromarray(picture).resize((1600, 1200)).save(buffer, "JPEG")

    def found(words: str) -> str:
        answer = find(models, buffer.getvalue(), "photo.jpg", words, 0.01, told)
        with tempfile.TemporaryDirectory() as folder:
            write_masks(answer, Path(folder))
            write_coco(answer, Path(folder))
        return showing.found(answer)

    def browsed(stage: str, reason: str) -> str:
        return showing.browsed(sets.page(stage, reason, "", 2))

    return {
        "draw 1 picture, 2 words": lambda: drawn(1),
        "draw 4 pictures, 2 words": lambda: drawn(4),
        "find 2 words in 1600 x 1200 pixels, with the files to take along": lambda: found(
            "dog, cat"
        ),
        "find 5 words in it": lambda: found(FIVE),
        "browse the synthetic set": lambda: browsed("synthetic_dataset", EVERY),
        "browse rejected triplets": lambda: browsed("triplets", REJECTED),
        "compare two runs": lambda: showing.compared(
            compare(root, profile, profile), profile, profile
        ),
    }


def timed(ask: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds and processor seconds of an answer, those of all threads together."""
    wall, used = time.perf_counter(), time.process_time()
    ask()
    return time.perf_counter() - wall, time.process_time() - used


@exit_path
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_profile(parser)
    add_root(parser)
    parser.add_argument("--times", type=number(int, 1, 100), default=5, help="of each answer")
    chosen = parser.parse_args(arguments)
    params = load_params(chosen.profile)
    models = Models(params, Workspace(chosen.root, params.profile))
    models.grounding()
    models.segmenter()
    print("| answer | seconds | of the processor |\n|---|---|---|")
    for name, ask in answers(models, chosen.root, params.profile).items():
        walls, used = zip(*(timed(ask) for _ in range(chosen.times)), strict=True)
        print(f"| {name} | {min(walls):.2f} | {min(used):.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
