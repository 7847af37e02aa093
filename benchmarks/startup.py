"""What everybody waits for first: `import ml`, and the --help of every command.

    python -m benchmarks.startup [--times 5]

Prints a Markdown row for each command: the shortest time of several fresh processes, and the
shortest processor time, which a busy machine does not lengthen. Python alone is the first row.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence

from ml.__main__ import COMMANDS
from ml.arguments import number
from ml.errors import exit_path
from ml.settings.profile import ROOT

STARTS = {
    "nothing": ("-c", "pass"),
    "import ml": ("-c", "import ml"),
    **{
        f"python -m {command} --help": ("-m", *command.split(), "--help")
        for command in (
            "ml",
            *(f"ml {name}" for name in COMMANDS),
            "ml.studies",
            "orchestration.run_config",
            "orchestration.summary",
        )
    },
}


def once(arguments: Sequence[str]) -> tuple[float, float]:
    """Wall seconds and processor seconds of a fresh Python. Raises RuntimeError when it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, cwd=ROOT, env=os.environ
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{arguments} ended with {process.returncode}")
    return wall, used.ru_utime + used.ru_stime


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=number(int, 1, 100), default=5, help="processes a row")
    times = parser.parse_args(arguments).times
    print("| | seconds | of the processor |\n|---|---|---|")
    for name, start in STARTS.items():
        walls, used = zip(*(once(start) for _ in range(times)), strict=True)
        print(f"| `{name}` | {min(walls):.2f} | {min(used):.2f} |", flush=True)


if __name__ == "__main__":
    sys.exit(exit_path(main)())
