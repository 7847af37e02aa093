"""`python -m tests.fuzz --seed 1 --count 500 [--family words]`: prints the table and the faults."""

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.families import FAMILIES, as_processes, choose
from tests.fuzz.harness import faults, run_all, table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=400, help="distinct inputs in all")
    parser.add_argument("--family", choices=[family.name for family in FAMILIES], help="this alone")
    parser.add_argument(
        "--processes",
        type=int,
        default=0,
        help="so many of the commands in processes of their own (2 s each)",
    )
    parser.add_argument("--verbose", action="store_true", help="every input and what was said")
    chosen = parser.parse_args(arguments)
    cases = choose(chosen.seed, chosen.count, chosen.family)
    cases = as_processes(cases, chosen.processes) if chosen.processes else cases
    numbers = itertools.count(1)

    def say(result) -> None:
        if chosen.verbose:
            last = (result.said.strip().splitlines() or [""])[-1]
            print(
                f"{next(numbers):4} {result.verdict}: {result.case.family}: {result.case.name}\n"
                f"       {last[:300]}",
                flush=True,
            )

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        results = run_all(cases, Path(folder), say)
    wrong = faults(results)
    print("\n".join(wrong))
    print(f"\nseed {chosen.seed}, {time.monotonic() - started:.0f} s")
    print(table(results))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
