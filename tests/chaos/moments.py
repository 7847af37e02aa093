"""When to kill: drawn over all stages, or aimed at a place that is narrow but matters.

A moment is seen in the file system alone. One that is over before the watcher looks is still a
kill, a little later than it was aimed.
"""

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.checkout import scratch_of
from tests.chaos.disk import NAMES, making, recipe_of
from tests.chaos.training import TRAININGS

SHARDED = ("benchmark", "prompts", "images", "masks", "synthetic_dataset")
START = "start"  # before the first stage: imports, Dagster's own beginning


@dataclass(frozen=True)
class View:
    """What a watcher sees of a run."""

    checkout: Path
    data: Path
    since: float  # time.time() at which the run was started

    @property
    def scratch(self) -> Path:
        return scratch_of(self.checkout)

    def there(self, *parts: str) -> bool:
        return self.data.joinpath(*parts).exists()


@dataclass(frozen=True)
class Moment:
    """label: for the table. stage: from which it may come. seen: whether it is now, or over. delay:
    seconds to wait after that. how: "all", "parent", "child". holds: what was aimed at."""

    label: str
    stage: str
    seen: Callable[[View], bool]
    delay: float = 0.0
    how: str = "all"
    holds: Callable[[View], bool] | None = None

    def label_after(self, view: View) -> str:
        """The label of a kill that has been done: whether it came in time."""
        late = self.holds is not None and not self.holds(view)
        return f"{self.label} (just after)" if late else self.label


def _reached(stage: str, view: View, beyond: int = 0) -> bool:
    """Whether the stage, or the one so many places beyond it, or a later one is being made."""
    now = making(view.data)
    return bool(now) and NAMES.index(now) >= NAMES.index(stage) + beyond


def drawn(
    chance: random.Random, count: int, seconds: Mapping[str, float], recipes: Mapping[str, dict]
) -> list[Moment]:
    """Random moments, half of them by the stages' share of the time, half by stage.

    seconds: of each stage and of START, in a run that nobody disturbs.
    """
    total, moments = sum(seconds.values()), []
    for _ in range(count):
        weights = [0.5 / len(seconds) + 0.5 * spent / total for spent in seconds.values()]
        stage = chance.choices(list(seconds), weights)[0]
        how = chance.choices(["all", "parent", "child"], [8, 1, 1])[0]
        delay = chance.uniform(0, seconds[stage])
        if stage == START:
            moments.append(Moment("at the start", stage, lambda _: True, delay, how))
        else:
            moments.append(Moment("drawn", stage, _began(stage, recipes[stage]), delay, how))
    return moments


def _began(stage: str, recipe: dict) -> Callable[[View], bool]:
    def seen(view: View) -> bool:
        done = recipe_of(view.data / stage) == recipe and bool(making(view.data))
        return _reached(stage, view) or done

    return seen


def _in_stage(stage: str, holds: Callable[[View], bool]) -> Callable[[View], bool]:
    """Seen when the condition holds, or when a later stage shows that it is over."""
    return lambda view: holds(view) or _reached(stage, view, beyond=1)


def _exact(label: str, stage: str, holds: Callable[[View], bool]) -> Moment:
    return Moment(label, stage, _in_stage(stage, holds), holds=holds)


def _half_checkpoint(folder: Path) -> bool:
    try:
        return any(".pt." in name and name.endswith(".tmp") for name in os.listdir(folder))
    except FileNotFoundError:
        return False


def aimed(chance: random.Random, shards: Mapping[str, int], dagster: bool) -> list[Moment]:
    """One moment of every kind, of a stage that is drawn. shards: a stage's number of them."""
    sharded, training, any_stage = (
        chance.choice(names) for names in (SHARDED, list(TRAININGS), NAMES)
    )
    last = f".shard-{shards[sharded] - 1:05d}.json"

    def after_last_shard(view: View) -> bool:
        return view.there(".making", sharded, last)

    def after_manifest(view: View) -> bool:
        return view.there(".making", any_stage, "manifest.json")

    def between_renames(view: View) -> bool:
        new = (".making", any_stage)
        return view.there(".making", f"{any_stage}.state") and not view.there(*new)

    def set_aside(view: View) -> bool:
        return view.there(f".{any_stage}.replaced")

    def checkpoint(view: View) -> bool:
        return _half_checkpoint(view.data / ".making" / training / ".progress")

    def crowned(view: View) -> bool:
        record = ("champion", "grounding", "record.json")
        return view.there(*record) and view.there(".making", "promotion.json")

    moments = [
        _exact("last shard, no manifest", sharded, after_last_shard),
        _exact("manifest, not renamed", any_stage, after_manifest),
        _exact("between the renames", any_stage, between_renames),
        _exact("old folder set aside", any_stage, set_aside),
        _exact("checkpoint half-written", training, checkpoint),
        _exact("champion recorded, no verdict", "promotion", crowned),
    ]
    return moments + (_of_dagster(chance) if dagster else [])


def _of_dagster(chance: random.Random) -> list[Moment]:
    judged = chance.choice(NAMES[:11])

    def no_file_yet(view: View) -> bool:
        folder, alive = view.checkout / ".dagster" / "history" / "runs", ".dagster/alive"
        files = folder.glob("*-*.db") if folder.exists() else ()
        new = {file.stem for file in files if file.stat().st_mtime >= view.since}
        return bool(new) and not any((view.checkout / alive / name).exists() for name in new)

    def judging(view: View) -> bool:
        return view.there(judged, "manifest.json") and not view.there(
            ".state", judged, "quality.json"
        )

    def store(view: View) -> bool:
        return any(view.checkout.glob("mlflow.db*")) or any(view.scratch.glob("*/mlflow.db"))

    def registering(view: View) -> bool:
        return any((view.checkout / "mlartifacts").glob("**/MLmodel"))

    def sealing(view: View) -> bool:
        return (view.checkout / ".dvc" / "cache").exists()

    return [
        Moment("run recorded, not begun", START, no_file_yet),
        Moment("checks", judged, _in_stage(judged, judging), chance.uniform(0, 1)),
        Moment("registry made", "promotion", store, chance.uniform(0, 5)),
        _exact("registering", "promotion", registering),
        Moment("registering", "promotion", _in_stage("promotion", registering), 1.0),
        Moment("sealing", "report", sealing),
        Moment("sealing", "report", sealing, chance.uniform(0, 2), "parent"),
    ]


def in_order(moments: Sequence[Moment]) -> list[Moment]:
    """By stage, so that each is met once; START anywhere is first."""
    order = {START: -1} | {name: place for place, name in enumerate(NAMES)}
    return sorted(moments, key=lambda moment: (order[moment.stage], moment.delay))
