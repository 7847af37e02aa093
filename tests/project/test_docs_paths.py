"""The files, folders and layers that docs/glossary.md and docs/architecture.md name exist."""

import re
import tomllib

import pytest

from ml.settings.profile import ROOT

PLACE = re.compile(r"`((?:ml|orchestration|tests|docs)/[\w./-]+)`")


@pytest.mark.parametrize("page", ["glossary.md", "architecture.md"])
def test_every_place_exists(page):
    text = (ROOT / "docs" / page).read_text()
    places = {place for place in PLACE.findall(text)}
    missing = sorted(place for place in places if not (ROOT / place).exists())
    assert len(places) > 10 and not missing
    links = re.findall(r"\]\(([\w./-]+)\)", text)
    assert links and all((ROOT / "docs" / link).exists() for link in links)


def test_the_layers_are_those_of_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c for c in contracts["contracts"] if c["type"] == "layers")["layers"]
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert "\n".join(layers) in text


def test_every_room_is_described():
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {path.parent.name for path in (ROOT / "ml").glob("*/__init__.py")}
    assert {room for room in rooms if f"`ml/{room}`" not in text} == set()
