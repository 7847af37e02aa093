"""A wheel of the project, built, installed and used where there is no checkout."""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.install_size import copy_source
from ml import GroundedDiffusionPipeline
from ml.images.png import encode_png
from ml.settings.profile import ROOT, load_params
from tests.builders.doors import stage_folder

USE = """
import sys
from pathlib import Path
import ml
from ml.settings.profile import ROOT, load_params
from ml.words.vocabulary import load_vocabulary
assert Path(ml.__file__).is_relative_to(sys.argv[1]), ml.__file__
assert ROOT == Path.cwd(), ROOT
for profile in sys.argv[2].split(","):
    load_vocabulary(load_params(profile).vocabulary)
from ml.pipeline.stages.report import _template
_template("report.html.j2"), _template("audit.html.j2")
from orchestration.mlflow.packaging import copy_code, HERE, requirements
assert any(line.startswith("torch==") for line in requirements()), requirements()
copy_code(HERE / "pyfunc_segmenter.py", Path("packed"))
print(load_params("micro"))
"""

GROUND = """
import importlib.util, json, sys
from ml import GroundedDiffusionPipeline
folder, picture, mode = sys.argv[1:]
OTHERS = ("dagster", "mlflow", "great_expectations", "dvc")
if mode == "empty":
    there = [name for name in OTHERS if importlib.util.find_spec(name)]
else:
    there = [name for name in OTHERS if name in sys.modules]
assert not there, there
pipe = GroundedDiffusionPipeline.from_pretrained(folder)
out = pipe.ground(picture, entities=["dog", "bus"])
assert not [name for name in OTHERS if name in sys.modules]
print(json.dumps({word: float(found.mean()) for word, found in out.probabilities[0].items()}))
"""


def run(arguments: list[str], **kwargs) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout


def outside() -> dict[str, str]:
    """The environment variables of a process that knows nothing of this checkout."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    home = tmp_path_factory.mktemp("wheel")
    source = home / "source"
    source.mkdir()
    pip = "-m pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir".split()
    run([*pip, str(home), str(copy_source(source))])
    return next(home.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """The wheel unpacked where an installer puts packages."""
    folder = tmp_path_factory.mktemp("site")
    run([*"-m pip install --quiet --no-deps --no-index --target".split(), str(folder), str(wheel)])
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of the stage `grounding_model`, a picture and what this checkout finds in it."""
    home = tmp_path_factory.mktemp("saved")
    folder = stage_folder(home)
    grounded = GroundedDiffusionPipeline.from_pretrained(folder)
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    (home / "picture.png").write_bytes(encode_png(picture))
    found = grounded.ground(picture, ["dog", "bus"]).probabilities[0]
    return folder, home / "picture.png", {word: own.mean() for word, own in found.items()}


def test_everything_that_the_code_reads_is_in_it(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("ml", "orchestration"):
        expected = {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert expected <= names, sorted(expected - names)
    assert "ml/defaults/params.yaml" in names and "ml/defaults/profiles/sd15.yaml" in names
    assert not [name for name in names if name.startswith(("tests", "data", "ml/defaults/ml"))]


def test_it_works_where_nothing_else_is(site, tmp_path):
    profiles = ",".join(p.stem for p in (ROOT / "profiles").glob("*.yaml") if "." not in p.stem)
    env = outside() | {"PYTHONPATH": str(site)}
    out = run(["-P", "-c", USE, str(site), profiles], cwd=tmp_path, env=env)
    assert out.strip().splitlines()[-1] == repr(load_params("micro"))


def grounds(python: Path | str, saved, mode: str, **kwargs) -> None:
    model, picture, expected = saved
    done = subprocess.run(
        [python, "-P", "-c", GROUND, model, picture, mode], capture_output=True, text=True, **kwargs
    )
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found == pytest.approx(expected, abs=1e-4)


def test_it_grounds_a_picture_without_the_checkout(site, saved, tmp_path):
    grounds(
        sys.executable, saved, "shared", cwd=tmp_path, env=outside() | {"PYTHONPATH": str(site)}
    )


@pytest.fixture
def scratch():
    """A folder that goes at once: pytest keeps its own of the last runs, and this is gigabytes."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.slow
def test_it_grounds_a_picture_in_an_empty_environment(wheel, saved, scratch):
    """The library alone, from the registry: no Dagster, no MLflow; minutes and gigabytes."""
    run(["-m", "venv", str(scratch / "venv")], env=outside())
    python = scratch / "venv" / "bin" / "python"
    install = f"-m pip install --quiet -c {ROOT / 'constraints.txt'} {wheel}".split()
    done = subprocess.run([python, *install], capture_output=True, text=True, env=outside())
    assert done.returncode == 0, done.stderr[-3000:]
    grounds(python, saved, "empty", cwd=scratch, env=outside())
