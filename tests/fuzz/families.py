"""Which families there are, and a choice of so many inputs of them."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.fuzz import (
    addresses,
    checkpoints,
    commands,
    folders,
    grounding,
    published,
    settings,
    words,
    workspaces,
)
from tests.fuzz.harness import Case


@dataclass(frozen=True)
class Family:
    name: str
    cases: Callable[[random.Random], Iterator[Case]]  # without end
    share: int  # of the inputs
    quick: bool = True  # needs no torch


FAMILIES = (
    Family("words", words.cases, 5),
    Family("settings", settings.cases, 6),
    Family("commands", commands.cases, 5),
    Family("folders", folders.cases, 5),
    Family("published", published.cases, 5),
    Family("workspaces", workspaces.cases, 5),
    Family("addresses", addresses.cases, 3),
    Family("checkpoints", checkpoints.cases, 5, quick=False),
    Family("grounding", grounding.cases, 3, quick=False),
)


def choose(seed: int, count: int, only: str | None = None, quick: bool = False) -> list[Case]:
    """So many distinct inputs, the families by their shares."""
    families = [f for f in FAMILIES if only in (None, f.name) and (f.quick or not quick)]
    whole = sum(family.share for family in families)
    chosen: list[Case] = []
    for place, family in enumerate(families, start=1):
        upto = round(count * sum(f.share for f in families[:place]) / whole)
        chosen += _distinct(
            family.cases(random.Random(f"{seed}/{family.name}")), upto - len(chosen)
        )
    return chosen


def as_processes(cases: list[Case], count: int) -> list[Case]:
    """So many of them in processes of their own, spread over the families."""
    able = [place for place, case in enumerate(cases) if isinstance(case.command, str)]
    chosen = set(able[:: max(1, len(able) // count)][:count])
    return [replace(case, process=place in chosen) for place, case in enumerate(cases)]


def _distinct(cases: Iterator[Case], count: int) -> list[Case]:
    found: dict[str, Case] = {}
    drawn = 0
    while len(found) < count:
        case = next(cases)
        found.setdefault(case.name, case)
        drawn += 1
        if drawn > 20 * count + 200:
            raise ValueError(f"{case.family}: {len(found)} distinct inputs, expected {count}")
    return list(found.values())
