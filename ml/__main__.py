"""`python -m ml <stage> [--profile micro]`: one stage, or `all` of them in order.

The same call is the `cmd` of every stage in dvc.yaml. Besides: `plan` (what a profile needs),
`init` (a profile for your own words), `audit` (ticks of the audit sheet), `prove` (the paper's
table with your models, cut down), `export` (the set in another tool's format), `teach` (words by a
few labelled pictures), `convert-grounding` (the authors' own checkpoint), `score-grounding`
(another module on a run's pictures), `app` (all of it in a browser); each has its --help. A
training stage runs on several GPUs under `accelerate launch --multi_gpu --num_processes 2 -m ml
<stage>`.
"""

import sys

from ml.errors import exit_path

COMMANDS = (
    "plan",
    "init",
    "audit",
    "prove",
    "export",
    "teach",
    "convert-grounding",
    "score-grounding",
    "app",
)
"""Modules of `ml.cli` (with `_` for `-`), each with `main(arguments) -> exit code`."""
USAGE = """python -m ml STAGE [--profile PROFILE] [--root ROOT] [--force]
       python -m ml COMMAND [--help] [options of the command]"""


@exit_path
def main(arguments: list[str] | None = None) -> int:
    """Runs a command or stages; returns the exit code."""
    import importlib  # in here, like all that follows: so Ctrl-C is quiet from the start
    import json

    from ml.arguments import add_profile, add_workspace, make_parser
    from ml.compute import processes
    from ml.pipeline.runner import run_stage
    from ml.pipeline.table import STAGES
    from ml.settings.profile import load_params

    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        command = arguments[0].replace("-", "_")
        return importlib.import_module(f"ml.cli.{command}").main(arguments[1:])
    names = [stage.name for stage in STAGES]
    parser = make_parser("python -m ml", __doc__)
    parser.usage = USAGE
    parser.add_argument("stage", choices=[*names, "all", *COMMANDS])
    add_profile(parser)
    add_workspace(parser)
    parser.add_argument("--force", action="store_true", help="make it again from nothing")
    chosen = parser.parse_args(arguments)
    if chosen.stage in COMMANDS:
        raise ValueError(
            f"{chosen.stage} is a command with options of its own: expected it first, got "
            f"{arguments[0]!r} there; write python -m ml {chosen.stage} [options]"
        )
    params = load_params(chosen.profile)
    for name in names if chosen.stage == "all" else [chosen.stage]:
        report = run_stage(name, params, chosen.root, force=chosen.force)
        if processes.is_main():
            state = "up to date" if report.cached else f"done in {report.seconds:.1f} s"
            print(f"{name}: {state}, {report.digest[:12]}")
            print(json.dumps(report.facts, indent=2, sort_keys=True))
    processes.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
