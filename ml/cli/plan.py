"""`python -m ml plan --profile sd15 --images 10000`: what a run needs, before anything starts.

Prints downloads, disk by stage, memory and hours. Ends with exit code 4 when this machine is too
small for the run, and with 2, as the stages do, when the profile asks for a device or for data that
is not there.
"""

from ml.arguments import add_profile, add_root, make_parser, number
from ml.cli.planning.counts import with_images
from ml.cli.planning.making import make_plan
from ml.cli.planning.page import page
from ml.errors import DONE, INPUT, RESOURCES
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params


def main(arguments: list[str]) -> int:
    """Prints the plan and returns the exit code."""
    parser = make_parser("python -m ml plan", __doc__)
    add_profile(parser)
    parser.add_argument(
        "--images",
        type=number(int, 1, 10_000_000),
        help="synthetic pictures, instead of the profile's",
    )
    parser.add_argument("--no-probe", action="store_true", help="measure nothing, load no model")
    add_root(parser)
    chosen = parser.parse_args(arguments)
    params = load_params(chosen.profile)
    if chosen.images is not None:
        params = with_images(params, chosen.images)
    plan = make_plan(params, Workspace(chosen.root, params.profile), probe=not chosen.no_probe)
    print(page(plan))
    if plan.unusable:
        return INPUT
    return RESOURCES if plan.refusals else DONE
