"""What must hold at each kill and at the end; every function returns what does not, in words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos import history
from tests.chaos.checkout import data_of
from tests.chaos.disk import (
    NAMES,
    Mark,
    broken,
    held_locks,
    left_over,
    read_object,
    recipe_of,
    whole_files,
)
from tests.chaos.training import TRAININGS, checkpoint_step

SECONDS = re.compile(r"<td>\d+\.\d</td>")


@dataclass
class Undisturbed:
    """A finished run that nobody killed."""

    digests: dict[str, str]
    recipes: dict[str, dict]  # of every stage: version, params, inputs
    page: str  # report.html without the seconds that it shows
    shards: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)  # by stage, and of "start"


def read_undisturbed(data: Path) -> Undisturbed:
    return Undisturbed(
        {name: read_object(data / name / "manifest.json").get("digest", "") for name in NAMES},
        {name: recipe_of(data / name) or {} for name in NAMES},
        page_without_seconds(data),
        {name: len(list((data / name).glob("shard-*.parquet"))) for name in NAMES},
        {
            name: read_object(data / ".state" / name / "timing.json").get("seconds", 0.0)
            for name in NAMES
        },
    )


def page_without_seconds(data: Path) -> str:
    file = data / "report" / "report.html"
    return SECONDS.sub("<td>-</td>", file.read_text()) if file.is_file() else ""


def wrong_digests(data: Path, expected: Undisturbed) -> list[str]:
    """Against the undisturbed run. `report` shows how long each stage took, so its digest differs
    from run to run: its recipe and its page without those seconds are compared."""
    found = read_undisturbed(data)
    wrong = [
        f"{name}: digest {found.digests[name][:12] or 'none'}, undisturbed "
        f"{expected.digests[name][:12]}"
        for name in NAMES
        if name != "report" and found.digests[name] != expected.digests[name]
    ]
    if found.recipes["report"] != expected.recipes["report"] or found.page != expected.page:
        wrong.append("report: not the undisturbed page")
    return wrong


@dataclass
class Memory:
    """What was whole at the kills so far, and where the trainings stood."""

    whole: dict[str, Mark] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)  # of the checkpoint at the last kill
    shown: dict[str, int] = field(default_factory=dict)  # last step of the bar at the last kill
    repeated: int = 0  # training steps in all

    def look(self, data: Path, recipes: Mapping[str, dict]) -> list[str]:
        """Compares the disk with what was whole before, and remembers what is whole now."""
        now = whole_files(data, dict(recipes))
        wrong = [
            f"{name} was whole at a kill and {'was made again' if name in now else 'is gone'}"
            for name, mark in self.whole.items()
            if now.get(name) != mark
        ]
        self.whole |= now
        return wrong + broken(data)

    def trained(
        self, data: Path, bars: Mapping[str, tuple[int, int]], every: Mapping[str, int]
    ) -> list[str]:
        """Compares from where trainings went on with their checkpoints; remembers new ones.

        bars: first and last step that the run's output showed. every: steps between checkpoints.
        """
        wrong = []
        for stage, (first, last) in bars.items():
            kept, before = self.steps.get(stage, 0), self.shown.get(stage, 0)
            if first != kept:
                wrong.append(f"{stage} went on from step {first}, its checkpoint had {kept}")
            if before - first > every[stage]:
                wrong.append(f"{stage} repeated {before - first} steps, more than {every[stage]}")
            self.repeated += max(0, before - first)
            self.shown[stage] = last
        for stage in TRAININGS:
            try:
                step = checkpoint_step(data, stage)
            except ValueError as error:
                wrong.append(str(error))
                continue
            if step is not None:
                self.steps[stage] = step
        return wrong


def wrong_end(checkout: Path, expected: Undisturbed, dagster: bool) -> list[str]:
    """What a workspace shows whose last run was let alone."""
    data = data_of(checkout)
    wrong = wrong_digests(data, expected)
    wrong += [f"left over: {name}" for name in left_over(checkout, data)]
    wrong += [f"still locked: {name}" for name in held_locks(checkout, data)]
    if dagster:
        wrong += history.wrong_runs(history.runs_of(checkout))
        wrong += history.wrong_registry(checkout / "mlflow.db")
        wrong += wrong_seal(checkout, expected)
    return wrong


def wrong_seal(checkout: Path, expected: Undisturbed) -> list[str]:
    """Whether DVC has every file of every stage as it is."""
    import hashlib

    import yaml

    lock = checkout / "dvc.lock"
    sealed = yaml.safe_load(lock.read_text())["stages"] if lock.is_file() else {}
    wrong = [f"{name} is not sealed" for name in NAMES if name not in sealed]
    cache = checkout / ".dvc" / "cache" / "files" / "md5"
    for name, entry in sealed.items():
        for out in entry["outs"]:
            found = cache / out["md5"][:2] / out["md5"][2:]
            content = found.read_bytes() if found.is_file() else b""
            if hashlib.md5(content).hexdigest() != out["md5"].removesuffix(".dir"):
                wrong.append(f"{name}: DVC's cache lacks what dvc.lock names")
    return wrong
