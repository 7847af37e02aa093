"""`python -m ml teach --images photos --masks masks`: a few labelled pictures teach their words.

Takes a grounding model and writes another that has learned the words of your masks, from one
picture on: either a text query for each word, which changes nothing else, or the module itself
(--what; docs/teach.md says what each is worth). The folder opens with
GroundedDiffusionPipeline.from_pretrained. Says how good the masks were before and after.
"""

import os
from contextlib import ExitStack
from pathlib import Path

from ml.arguments import add_profile, add_root, folder, make_parser, number
from ml.errors import DONE, shown


def main(arguments: list[str]) -> int:
    """Writes the taught model, prints its scores, and returns the exit code."""
    parser = make_parser("python -m ml teach", __doc__)
    parser.add_argument("--images", help="folder of your pictures")
    parser.add_argument("--masks", help="of their masks; classes.txt lies beside this folder")
    parser.add_argument("--labels", help="or one folder of both (docs/own-labels.md)")
    parser.add_argument("--words", help='some of the classes: "forklift, pallet" (default: all)')
    parser.add_argument("--model", help="folder of the grounding model (default: the profile's)")
    add_profile(parser)
    add_root(parser)
    parser.add_argument(
        "--what",
        choices=["module", "query"],
        default="module",
        help="default module; docs/teach.md",
    )
    parser.add_argument("--steps", type=number(int, 1, 100_000), help="of the optimiser")
    parser.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=0)
    parser.add_argument("--out", type=folder, help="new folder (default data/<profile>/taught)")
    chosen = parser.parse_args(arguments)
    from ml.cli.teaching.lesson import Lesson, give_lesson, taken
    from ml.cli.teaching.pictures import open_pictures, words_to_teach
    from ml.grounding.opening import STAGE
    from ml.pipeline.workspace import Workspace
    from ml.settings.profile import load_params
    from ml.store.stage_places import lock_of

    params = load_params(chosen.profile)
    workspace = Workspace(chosen.root, params.profile)
    out = chosen.out or workspace.data / "taught"
    if os.path.lexists(out):
        raise ValueError(taken(out))
    photos = open_pictures(chosen.labels, chosen.images, chosen.masks)
    vocabulary = words_to_teach(photos, chosen.words, params)
    model = chosen.model or workspace.folder(STAGE)
    lesson = Lesson(Path(model), chosen.what, chosen.steps, chosen.seed, out)
    with ExitStack() as locks:
        if chosen.model is None and workspace.data.exists():
            locks.enter_context(lock_of(workspace.data, STAGE)).read()
        give_lesson(lesson, photos, vocabulary, params, workspace)
    print(shown(f"written: {out}"))
    return DONE
