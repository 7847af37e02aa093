"""Which spoiled data the checks between the stages catch, and that sound data passes.

    python -m benchmarks.poison [--profile ci] [--seeds 5] [--only WORDS]
    python -m benchmarks.poison --make-runs 20
    python -m benchmarks.poison --clean

Takes a finished workspace and prints a table: for each kind and level how many of the poisoned
copies a check caught before the next stage, by which rule, and why the others were missed. A copy
has manifests and sidecars as if the stage had made it so; only the checks can tell. `--make-runs`
makes sound runs of the profile from seeds 1 to N in data/poison (20 s each and more); then each
poison seed takes another of them, so that no bound is proven on the data that it was set by.
`--clean` judges these runs, and draws by picture from the finished micro profile.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.poisons import asked, clean, drawn, filtered, found, labelled
from benchmarks.poisons.copies import SCHEMAS, copy_of, failures, in_short, try_poison
from benchmarks.poisons.kind import Poison
from benchmarks.poisons.upstream import MIXUPS
from ml.arguments import add_profile, add_root, make_parser, number
from ml.errors import ManifestError, exit_path
from ml.pipeline.recipe import recipe_of
from ml.pipeline.table import STAGE
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import load_params

POISONS: tuple[Poison, ...] = (
    *asked.POISONS,
    *drawn.POISONS,
    *found.POISONS,
    *filtered.POISONS,
    *labelled.POISONS,
)
Base = tuple[Workspace, Params]
HEAD = (
    "| stage | poison | level | caught | by | what is missed, and why |",
    "|---|---|---|---|---|---|",
)


def poison_lines(bases: list[Base], seeds: int, only: str, folder: Path) -> Iterator[str]:
    """A line of the table for each kind and level."""
    for poison in POISONS:
        if only not in f"{poison.stage} {poison.name}":
            continue
        for level in poison.levels:
            names, caught = [], 0
            for seed in range(seeds):
                workspace, params = bases[seed % len(bases)]
                rules = try_poison(poison, level, seed, workspace, params, folder)
                names, caught = names + rules, caught + bool(rules)
            missed = poison.unseen if caught < seeds else ""
            yield (
                f"| {poison.stage} | {poison.name} | {poison.level(level)} | {caught} of {seeds} "
                f"| {in_short(names)} | {missed} |"
            )


def mixup_lines(base: Base, other: Workspace, only: str, folder: Path) -> Iterator[str]:
    """A line for each folder that stands where it does not belong."""
    for mixup in MIXUPS:
        if only not in f"{mixup.stage} {mixup.name}":
            continue
        workspace, params = copy_of(base[0], folder), base[1]
        params = mixup.change(workspace, params, other)
        by = failures(workspace, mixup.stage, params)
        try:
            recipe_of(STAGE[mixup.next], params, workspace)
        except ManifestError:
            by = [f"{mixup.next} refuses to start", *by]
        yield f"| {mixup.stage} | {mixup.name} | | {min(len(by), 1)} of 1 | {in_short(by)} | |"


def alarms(sets: Iterable[Base], stages: Sequence[str]) -> tuple[int, list[str]]:
    """How many sets were judged, and each alarm in words."""
    count, found_ = 0, []
    for workspace, params in sets:
        count += 1
        for stage in stages:
            names = failures(workspace, stage, params)
            found_ += [f"set {count}, {stage}: {name}" for name in names]
    return count, found_


@exit_path
def main(argv: list[str] | None = None) -> None:
    parser = make_parser("python -m benchmarks.poison", __doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_profile(parser, "ci")
    add_root(parser)
    parser.add_argument("--seeds", type=number(int, 1, 1000), default=5, help="a kind and level")
    parser.add_argument(
        "--only", type=str, default="", help="kinds whose stage and name hold these words"
    )
    parser.add_argument("--make-runs", type=number(int, 0, 1000), default=0, help="sound runs")
    parser.add_argument("--clean", action="store_true", help="judge sound sets instead")
    arguments = parser.parse_args(argv)
    params, started = load_params(arguments.profile), time.perf_counter()
    finished = Workspace(arguments.root, params.profile)
    runs = arguments.root / "data" / "poison"
    for seed in range(1, arguments.make_runs + 1):
        clean.run_of(seed, finished, params, runs)
    bases = clean.finished_runs(params, runs)
    with tempfile.TemporaryDirectory(dir=finished.data.parent, prefix=".poison-") as place:
        folder = Path(place)
        if arguments.clean:
            large = Workspace(arguments.root, "micro")
            drawn_ = clean.draws(large, params, 20, folder)
            below = [stage for stage in SCHEMAS if stage != "prompts"]  # a draw is not balanced
            for name, sets, stages in (
                ("the finished run", [(finished, params)], list(SCHEMAS)),
                ("runs from other seeds", bases, list(SCHEMAS)),
                ("draws by picture from micro, prompts left out", drawn_, below),
            ):
                count, found_ = alarms(sets, stages)
                print(f"{name}: {count} sets, {len(found_)} false alarms {found_}", flush=True)
        else:
            print(*HEAD, sep="\n")
            for line in poison_lines(
                bases or [(finished, params)], arguments.seeds, arguments.only, folder
            ):
                print(line, flush=True)
            other = bases[0][0] if bases else Workspace(arguments.root, "micro")
            for line in mixup_lines((finished, params), other, arguments.only, folder):
                print(line, flush=True)
    print(f"\n{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
