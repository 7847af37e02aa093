"""Run by test_processes.py in each of two processes: both trainings, as `accelerate launch` would.

python -m tests.builders.two_processes <folder> <profile file>
"""

import json
import os
import sys
from pathlib import Path

from ml.__main__ import main
from ml.compute import processes
from ml.errors import WorkspaceBusy
from ml.grounding.training import train
from tests.compute.test_processes import toys
from tests.grounding.test_grounding_training import ENTITIES, PARAMS, make_module


def ground(folder: Path) -> dict:
    """Curves of a fresh training, and of one that goes on from a single process's checkpoint."""
    found = {}
    for variant in ("seeded", "paper"):
        file = folder / f"{variant}.pt"
        progress = train(make_module(variant), *toys(), ENTITIES, PARAMS, 0, file)
        found[variant] = progress.curve
    return found


def fails() -> None:
    raise WorkspaceBusy(f"told by the first, seen by {os.environ['RANK']}")


if __name__ == "__main__":
    place, profile = Path(sys.argv[1]), sys.argv[2]
    try:
        processes.on_main(fails)
    except WorkspaceBusy as busy:
        print(busy)
    curves = ground(place)
    assert main(["benchmark", "--profile", profile, "--root", str(place)]) == 2
    if processes.is_main():
        (place / "grounding.json").write_text(json.dumps(curves))
    sys.exit(main(["segmenter", "--profile", profile, "--root", str(place)]))
