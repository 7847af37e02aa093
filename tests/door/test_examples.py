"""Every script of `examples/`, run as its docstring says: one in a process of its own, the others
in this one, which has torch and diffusers already."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from ml.settings.profile import ROOT

EXAMPLES = {path.stem: path for path in sorted((ROOT / "examples").glob("*.py"))}


def docstring(name: str) -> str:
    return ast.get_docstring(ast.parse(EXAMPLES[name].read_text())) or ""


def command(name: str, *arguments: str | Path) -> list[str]:
    """What follows `python -m` in an example's docstring, with these arguments."""
    assert f"    python -m examples.{name} " in docstring(name)
    return [f"examples.{name}", *map(str, arguments)]


@pytest.fixture
def run(monkeypatch, capsys):
    """Runs an example by its docstring's command, in the checkout's root; what it prints."""

    def start(*asked: str | Path) -> str:
        module, *arguments = command(*asked)
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr("sys.argv", [module, *arguments])
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return capsys.readouterr().out

    return start


@pytest.fixture(scope="module")
def picture(door, tmp_path_factory):
    file = tmp_path_factory.mktemp("pictures") / "picture.png"
    door("a photograph of a dog", entities=["dog"], seed=1).images[0].resize((90, 60)).save(file)
    return file


def test_draw_and_segment(run, grounding_folder, tmp_path):
    printed = run("draw_and_segment", "--folder", grounding_folder, "--out", tmp_path)
    assert [line.split(":")[0] for line in printed.splitlines()] == ["dog", "cat"]
    assert {file.name for file in tmp_path.iterdir()} == {"picture.png", "dog.png", "cat.png"}


def test_ground_a_picture(run, grounding_folder, picture):
    printed = run(
        "ground_a_picture", picture, "--folder", grounding_folder, "--words", "dog", "bus"
    )
    assert [line.split(":")[0] for line in printed.splitlines()] == ["dog", "bus"]
    assert "presence" in printed


def test_use_the_segmenter(segmenter_made, picture):
    """From a shell, as people do."""
    asked = command("use_the_segmenter", picture, "--folder", segmenter_made)
    printed = subprocess.run(
        [sys.executable, "-m", *asked], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert sum(int(line.split()[-2]) for line in printed.splitlines()) == 90 * 60


def test_own_vocabulary(run, grounding_folder, tmp_path):
    file = tmp_path / "farm.yaml"
    file.write_text(docstring("own_vocabulary").split("farm.yaml:")[1].replace("    ", ""))
    printed = run("own_vocabulary", "--folder", grounding_folder, "--vocabulary", file)
    assert printed.startswith("cow (seen): ") and "horse (unseen): " in printed


def test_every_example_is_short_and_run_here():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    for name, path in EXAMPLES.items():
        assert name in tested and len(path.read_text().splitlines()) < 45
