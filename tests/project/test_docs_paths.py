"""The files, modules and layers that pages and docstrings name exist."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

from ml.settings.profile import ROOT

NAME = re.compile(r"`((?:ml|orchestration)(?:\.[a-zA-Z_]\w*)+)")
PLACE = re.compile(r"`((?:ml|orchestration|tests|docs)/[\w./-]+)`")


MADE = {"docs/full-size-proof.json"}  # by `python -m ml prove`, when it is run


@pytest.mark.parametrize("page", sorted(p.name for p in (ROOT / "docs").glob("*.md")))
def test_every_place_exists(page):
    text = (ROOT / "docs" / page).read_text()
    places = set(PLACE.findall(text)) - MADE
    assert not sorted(place for place in places if not (ROOT / place).exists())
    assert len(places) > 10 or page not in ("glossary.md", "architecture.md")
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    assert all((ROOT / "docs" / link).exists() for link in links)


def test_the_layers_are_those_of_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in contracts["contracts"] if c["type"] == "layers")["layers"]
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert "\n".join(layers) in text


def test_every_room_is_described():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.parent.name for path in (ROOT / "ml").glob("*/__init__.py")}
    assert {room for room in rooms if f"`ml/{room}`" not in text} == set()


def sources() -> list[Path]:
    return [p for name in ("ml", "orchestration", "examples") for p in (ROOT / name).rglob("*.py")]


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or what a module defines or holds at its top level."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:cut])
        module = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if module.is_file():
            return cut == len(parts) or parts[cut] in re.findall(r"\w+", module.read_text())
    return False


@pytest.mark.parametrize("file", sources(), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_name_in_a_docstring_exists(file):
    texts = [
        node.value
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    wrong = {name for text in texts for name in NAME.findall(text) if not exists(name)}
    wrong |= {
        place for text in texts for place in PLACE.findall(text) if not (ROOT / place).exists()
    }
    assert not wrong


def test_a_name_that_is_gone_is_found():
    assert exists("ml.images.photographs") and exists("ml.settings.profile.load_params")
    assert not exists("ml.images.files") and not exists("ml.settings.profile.load_everything")
