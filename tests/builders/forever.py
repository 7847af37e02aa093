"""Tasks that never end, for a run of the studies that is killed. Imports nothing: each of three
processes would wait for it."""

import os
import time
from pathlib import Path


def forever(path: Path) -> None:
    path.write_text(str(os.getpid()))
    time.sleep(3600)


def run_forever(folder: Path) -> None:
    from ml.studies.parallel import run_tasks

    run_tasks("t", [(forever, folder / name) for name in ("a", "b")], 2)
