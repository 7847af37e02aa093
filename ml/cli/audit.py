"""`python -m ml audit ticks.json --profile yard`: what the ticks of the audit sheet say.

Reads the file that the sheet's button saves, prints the precision of each class with its interval,
and adds the ticks to the marks, which the report and the promotion count. Not here: the sheet and
the arithmetic (`ml.pipeline.audit`), the page (stage `report`).
"""

from pathlib import Path

from ml.arguments import add_profile, add_workspace, make_parser
from ml.errors import shown
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params


def main(arguments: list[str]) -> int:
    """Prints the table, adds the ticks to the marks, and returns the exit code."""
    parser = make_parser("python -m ml audit", __doc__)
    parser.add_argument("ticks", type=Path, help="the JSON file that the audit sheet saved")
    add_profile(parser)
    add_workspace(parser)
    chosen = parser.parse_args(arguments)
    import pandas as pd  # here: --help needs none of it

    from ml.pipeline.audit import precision, read_ticks
    from ml.pipeline.audited import marks_of
    from ml.pipeline.marks import FOLDER, add_marks

    workspace = Workspace(chosen.root, load_params(chosen.profile).profile)
    ticks = read_ticks(chosen.ticks, workspace)
    add_marks(workspace, marks_of(workspace, ticks))
    rows = precision(ticks)
    table = pd.DataFrame(rows).round(1)
    print(shown(table.to_string(index=False)))
    print(
        "precision in percent with its Wilson 95 % interval; the ticks are among the marks in "
        f"{workspace.data / FOLDER}"
    )
    return 0
