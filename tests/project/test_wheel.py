"""A wheel of the project, built, installed and used where there is no checkout."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from ml.settings.profile import ROOT, load_params

PARTS = (
    "ml",
    "orchestration",
    "profiles",
    "params.yaml",
    "pyproject.toml",
    "requirements.txt",
    "README.md",
)
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


def run(arguments: list[str], **kwargs) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    home = tmp_path_factory.mktemp("wheel")
    source = home / "source"
    source.mkdir()
    for name in PARTS:  # not in place: building leaves folders beside the sources
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, source / name)
    run(
        [
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--wheel-dir",
            str(home),
            str(source),
        ]
    )
    return next(home.glob("*.whl"))


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


def test_it_works_where_nothing_else_is(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(
        [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(site),
            str(wheel),
        ]
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    profiles = ",".join(p.stem for p in (ROOT / "profiles").glob("*.yaml") if "." not in p.stem)
    out = run(
        ["-P", "-c", USE, str(site), profiles], cwd=elsewhere, env=env | {"PYTHONPATH": str(site)}
    )
    assert out.strip().splitlines()[-1] == repr(load_params("micro"))
