"""What is imported is asked for: by the library in the base dependencies, by the rest in extras."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ml.settings.profile import ROOT
from orchestration.mlflow.packaging import NEEDED

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRA_ROOM = "ml.exports"
"""The room of the library that needs an extra, `export`; it is imported when that is asked for."""
LIBRARY = [
    ROOT / room.replace(".", "/")
    for room in PROJECT["tool"]["mypy"]["packages"]
    if room != EXTRA_ROOM
]
OPTIONAL = {
    "botocore",  # of s3fs
    "fiftyone",  # of a test of exports, which says how to run it
    "ultralytics",  # the same
    "daam",  # of make bench, which shows the real one where it is
    "detectron2",  # no release for this Python: whoever wants it builds it
    "click",  # of the tests: Dagster brings it
    "grpc",  # of the tests: Dagster and Ray bring it
    "kubernetes_validate",  # of one test, which says how to run it
    "s3fs",  # for a root on S3; who asks for one without it is told
    "torchao",  # for diffusion.quantise; who asks for it without it is told
    "ray",  # for several workers; who asks for them without it is told
}
GIVEN = {"ml", "orchestration", "tests", "benchmarks", "_typeshed"} | set(sys.stdlib_module_names)
DISTRIBUTIONS = importlib.metadata.packages_distributions()


def asked(*extras: str) -> dict[str, Requirement]:
    lines = [*PROJECT["project"]["dependencies"]]
    for extra in extras:
        lines += PROJECT["project"]["optional-dependencies"][extra]
    return {canonicalize_name(line.name): line for line in map(Requirement, lines)}


def imported(*places: Path) -> dict[str, set[str]]:
    """What sources import anywhere: the package's name, and the distributions that have it."""
    found: dict[str, set[str]] = {}
    for file in (file for place in places for file in sorted(place.rglob("*.py"))):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names = [node.module]
            for top in {name.split(".")[0] for name in names} - GIVEN - OPTIONAL:
                found[top] = {canonicalize_name(name) for name in DISTRIBUTIONS[top]}
    return found


def missing(places: list[Path], *extras: str) -> list[str]:
    wanted = asked(*extras)
    return [top for top, names in imported(*places).items() if not names & set(wanted)]


def test_every_room_of_the_library_is_there():
    assert all(room.is_dir() for room in LIBRARY)


def test_the_library_needs_the_base_alone():
    found = imported(*LIBRARY)
    assert {"torch", "diffusers", "transformers"} <= set(found)
    assert not missing(LIBRARY)
    assert set(asked()) <= set().union(*found.values()), (
        "asked for by `pip install .` and used by no room"
    )


@pytest.mark.parametrize(
    ("folder", "extras"),
    [
        ("ml", ["pipeline", "export", "app"]),
        ("ml/exports", ["export"]),
        ("orchestration", ["pipeline", "tracking", "ray", "kubernetes"]),
        ("tests", ["pipeline", "tracking", "kubernetes", "export", "dev"]),
        ("benchmarks", ["pipeline", "tracking", "dev"]),
    ],
)
def test_the_rest_needs_its_extras(folder, extras):
    assert not missing([ROOT / folder], *extras)


def test_the_library_alone_brings_no_orchestrator():
    assert not {"dagster", "mlflow", "mlflow-skinny", "great-expectations", "dvc"} & set(asked())


def test_what_a_registered_model_needs_is_of_the_base():
    assert set(NEEDED) <= set(asked())


TOOLS = re.compile(r"\$\(TOOLS\)/bin/pip install --quiet '(\S+)' -c constraints.txt")
"""What the Makefile installs in an environment of its own."""


def test_pins_are_within_the_ranges_and_nothing_else_is_pinned():
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = asked(*extras)
    make = (ROOT / "Makefile").read_text()
    tools = [Requirement(text) for text in TOOLS.findall(make)]
    wanted |= {canonicalize_name(tool.name): tool for tool in tools}
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert {canonicalize_name(pin.name) for pin in pins} == set(wanted)
    for pin in pins:
        (exact,) = pin.specifier
        assert exact.operator == "=="
        lower = wanted[canonicalize_name(pin.name)].specifier
        assert lower.contains(exact.version, prereleases=True), pin
        assert any(part.operator == ">=" for part in lower), f"{pin.name}: no lower bound"
