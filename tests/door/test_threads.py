"""OpenMP reads how its threads wait once, when torch is imported: every process of ours must have
said it before. libgomp prints what it read, so a process is asked for that, not for its
environment. Where only that moment counts, `torch` is a module that loads torch's libgomp and ends
the process: 2 s for each process that the import of the real one would take."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from ml.settings.profile import ROOT

ENTRIES = {
    "python -m ml, the studies, the door": ["-c", "import ml, torch"],
    "Dagster's code location": ["-c", "import orchestration.definitions, torch"],
    "a trainer": ["-m", "ml.foundation.train_diffusion", "--help"],  # imports torch by itself
    "a benchmark": ["-m", "benchmarks.training_speed", "--help"],
}
WORKER = """
import multiprocessing, ml
if __name__ == "__main__":
    worker = multiprocessing.get_context("spawn").Process(target=__import__, args=("torch",))
    worker.start(), worker.join()
"""


@pytest.fixture
def stub(tmp_path) -> dict[str, str]:
    """Environment in which `torch` is the module told of above."""
    (libgomp,) = Path(find_spec("torch").origin).parent.glob("lib/libgomp*.so*")
    code = f"import ctypes, sys\nctypes.CDLL({str(libgomp)!r})\nsys.exit()\n"
    (tmp_path / "torch.py").write_text(code)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


def spins(command: list[str], **own: str) -> list[str]:
    """How often a waiting thread looks before it sleeps, as each libgomp of the process says."""
    ours = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    env = {k: v for k, v in os.environ.items() if k not in ours} | {"OMP_DISPLAY_ENV": "VERBOSE"}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=env | own, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-1000:]
    return re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stdout + done.stderr)


def test_openmp_alone_spins(stub):
    """What the other tests look at is there to be seen, is not the default, and is the same for
    the module in torch's place."""
    for own in ({}, stub):
        assert set(spins(["-c", "import torch"], **own)) == {"300000"}


def test_a_process_with_the_real_torch():
    """Each libgomp of it: other libraries bring their own."""
    assert set(spins(["-c", "import ml, torch, sklearn"])) == {"1000"}


@pytest.mark.parametrize("command", ENTRIES.values(), ids=ENTRIES)
def test_threads_soon_sleep_in_every_process_of_ours(command, stub):
    assert spins(command, **stub) == ["1000"]


def test_worker_processes_have_it_too(stub, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(WORKER)
    assert spins([str(script)], **stub) == ["1000"]


def test_the_users_own_value_is_kept(stub):
    (active,) = spins(["-c", "import ml, torch"], OMP_WAIT_POLICY="ACTIVE", **stub)
    assert int(active) > 300_000
    assert spins(["-c", "import ml, torch"], OMP_WAIT_POLICY="PASSIVE", **stub) == ["0"]
    assert spins(["-c", "import ml, torch"], GOMP_SPINCOUNT="77", **stub) == ["77"]
