"""The import contracts of pyproject.toml refuse what they are there to refuse."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ml.settings.profile import ROOT

FORBIDDEN = {
    "ml.words.forbidden": "import ml.pipeline.runner",
    "ml.grounding.forbidden": "from ml.drawn_world import world",
    "ml.pipeline.forbidden": "import ml.studies.table",
    "ml.store.forbidden": "def late():\n    import mlflow",
}
"""Where, and what must not be imported there; imports within functions count too."""


def contracts(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    """The sources, with nothing else beside them."""
    for name in ("ml", "orchestration"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_a_forbidden_import_is_named(copy):
    for module, code in FORBIDDEN.items():
        (copy / f"{module.replace('.', '/')}.py").write_text(code + "\n")
    done = contracts(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    for module in FORBIDDEN:
        assert f" {module} -> " in done.stdout, done.stdout
