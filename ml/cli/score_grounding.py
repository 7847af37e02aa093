"""`python -m ml score-grounding authors --profile sd15`: another module on a run's own pictures.

Protocol I of the module in a folder (of `convert-grounding`, `save_pretrained` or the stage
`grounding_model`), on the very pictures and masks that the stage `grounding_scores` scored the
profile's own module and DAAM on, beside their scores. Words that the folder was taught a query for
(`teach --what query`) are asked for by it. The folder's diffusion model is not used: what the
pictures were drawn with is the profile's. Nothing is written, and no model is registered.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml.arguments import add_profile, add_root, make_parser
from ml.errors import DONE, shown
from ml.settings.params import Params
from ml.words.cells import CELLS

if TYPE_CHECKING:  # pandas takes half a second; --help does without
    import pandas as pd
    from torch import Tensor

METHODS = ("other", "ours", "daam")
OF_A_MASK = ["key", "cell", "entity", "seen"]


def main(arguments: list[str]) -> int:
    """Prints the table and returns the exit code."""
    parser = make_parser("python -m ml score-grounding", __doc__)
    parser.add_argument("folder", help="that holds a grounding module")
    add_profile(parser)
    add_root(parser)
    chosen = parser.parse_args(arguments)
    from ml.grounding.opening import open_module
    from ml.pipeline.workspace import Workspace
    from ml.settings.profile import load_params
    from ml.store.manifest import read_manifest
    from ml.store.registry_folder import model_folder
    from ml.store.stage_places import lock_of

    place = model_folder(chosen.folder, "python -m ml score-grounding")
    module, queries = open_module(place)
    params = load_params(chosen.profile)
    workspace = Workspace(chosen.root, params.profile)
    with ExitStack() as locks:
        for stage in ("images", "triplets", "grounding_scores"):
            if workspace.data.exists():
                locks.enter_context(lock_of(workspace.data, stage)).read()
            read_manifest(workspace.folder(stage))
        scores = scores_beside(params, workspace, module, str(place), queries)
    print(page(table(scores, params.benchmark.bootstrap), shown(str(place)), params.profile))
    return DONE


def scores_beside(
    params: Params, workspace, module, source: str, queries: "Mapping[str, Tensor] | None" = None
) -> "pd.DataFrame":
    """The rows of the stage `grounding_scores`, with iou_other of the given module and of the
    queries that words were taught with it.

    Raises ValueError for a module that was made for another diffusion model or timestep, and for
    scores of other masks than those that are there now.
    """
    import pandas as pd

    from ml.diffusion.loading import load_pipeline
    from ml.grounding.engine import GroundingEngine
    from ml.grounding.opening import refuse_misfit
    from ml.pipeline.samples import load_samples
    from ml.pipeline.stages.grounding_scores import ground_batches, score_rows
    from ml.store.shards import read_frame
    from ml.words.vocabulary import load_vocabulary

    pipe, vocabulary = (
        load_pipeline(workspace.located(params.diffusion)),
        load_vocabulary(params.vocabulary),
    )
    refuse_misfit(source, pipe, module)
    parts = [
        score_rows(part, {"other": found.masks}, vocabulary)
        for part, found in ground_batches(
            GroundingEngine(pipe, module, params.diffusion.batch_size, queries=queries),
            load_samples(workspace, ["sim"]),
            params.diffusion.batch_size,
        )
    ]
    other = pd.concat(parts, ignore_index=True)
    file: Path = workspace.folder("grounding_scores") / "scores.parquet"
    own = read_frame(file)
    both = own.merge(other, on=OF_A_MASK, validate="one_to_one")
    if not len(both) == len(own) == len(other):
        raise ValueError(
            f"{file} has scores of {len(own)} masks, and the pictures have {len(other)}, "
            f"{len(both)} of them the same: make the stage grounding_scores again"
        )
    return both


def table(scores: "pd.DataFrame", resamples: int) -> dict[str, Any]:
    """`protocol_one` of METHODS, and under "difference" by cell that of the other module and the
    profile's own, on the same pictures, with its 95 % interval; points of a percent."""
    from ml.metrics.bootstrap import paired_bootstrap
    from ml.metrics.protocol_one import iou_counts, percent
    from ml.pipeline.stages.grounding_scores import protocol_one

    found: dict[str, Any] = protocol_one(scores, METHODS, resamples) | {"difference": {}}
    for cell in found["masks"]:
        rows = scores[scores.cell == cell]
        counts = [
            iou_counts(rows[f"iou_{method}"], rows.entity, rows.key)[0]
            for method in ("other", "ours")
        ]
        found["difference"][cell] = paired_bootstrap(percent, *counts, resamples, seed=0)
    return found


def page(found: dict[str, Any], folder: str, profile: str) -> str:
    """The table as the terminal shows it."""
    lines = [f"{'mIoU %, 95 %':<22}{folder[-18:]:>19}{profile[-18:]:>19}{'DAAM':>19}  difference"]
    for cell in found["masks"]:
        texts = []
        for method in METHODS:
            low, high = found["intervals"][method][cell]
            texts.append(f"{found[method][cell]:.1f} {low:.1f}..{high:.1f}")
        point, low, high = found["difference"][cell]
        lines.append(
            f"{CELLS[cell].report:<22}"
            + "".join(f"{text:>19}" for text in texts)
            + f"  {point:+.1f} {low:+.1f}..{high:+.1f}"
        )
    return "\n".join(lines)
