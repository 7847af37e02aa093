"""`import ml` shows its names and loads nothing for it."""

import subprocess
import sys

import pytest

import ml
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


def test_import_costs_no_torch():
    subprocess.run([sys.executable, "-c", LIGHT], check=True, cwd=ROOT)


def test_every_name_is_there():
    for name in ml.__all__:
        assert getattr(ml, name).__name__ == name
    with pytest.raises(AttributeError, match="'Grounding'"):
        _ = ml.Grounding
