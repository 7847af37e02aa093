"""`import ml` shows its names and loads nothing for it; neither does a command's --help."""

import subprocess
import sys

import pytest

import ml
from benchmarks.startup import STARTS
from ml.settings.profile import ROOT

LIGHT = """
import sys
import ml
assert set(ml.__all__) <= set(dir(ml))
assert not {"torch", "diffusers", "transformers", "numpy", "ml.grounding"} & set(sys.modules)
from ml import load_vocabulary
assert load_vocabulary("voc-1").seen
assert not {"torch", "diffusers", "transformers"} & set(sys.modules)
"""

HEAVY = """
import atexit, runpy, sys

heavy = {"torch", "torchvision", "diffusers", "transformers", "pandas", "pyarrow", "scipy",
         "pycocotools", "matplotlib", "accelerate", "dagster", "mlflow", "great_expectations"}
atexit.register(lambda: print(sorted(heavy & set(sys.modules)), file=sys.stderr))
_, sys.argv = sys.argv, sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module with arguments, and says on stderr which heavy packages it loaded."""

HELP = [tuple(more) for first, *more in STARTS.values() if first == "-m"]


def test_import_costs_no_torch():
    subprocess.run([sys.executable, "-c", LIGHT], check=True, cwd=ROOT)


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_loads_nothing_heavy(command):
    """By what is loaded, not by time: `python -m benchmarks.startup` measures that."""
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *command], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert done.stderr.strip() == "[]"


def test_a_text_is_measured_without_torch():
    """As `ml prompts` and `ml plan` do; torch would take longer than all that they do."""
    run = (
        "import sys; from ml.words.text_limit import find_limit; "
        "assert find_limit('data/foundation/micro/diffusion').most == 24; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", run], check=True, cwd=ROOT)


def test_every_name_is_there():
    for name in ml.__all__:
        assert getattr(ml, name).__name__ == name
    with pytest.raises(AttributeError, match="'Grounding'"):
        _ = ml.Grounding
