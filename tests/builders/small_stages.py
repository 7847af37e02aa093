"""Two stages that make shards of numbers, for tests of the workspace; cheap to import.

python -m tests.builders.small_stages <root> <seed> [seconds a shard]
"""

import dataclasses
import select
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa

import ml.pipeline.runner as stages
from ml.pipeline.runner import run_stage
from ml.pipeline.table import Output, Stage
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.store import files
from ml.store.making import write_shards
from ml.store.manifest import Manifest
from ml.store.places import place_of
from ml.store.shards import read_shards, split

SCHEMA = pa.schema([("key", pa.string()), ("value", pa.int64())])
TABLE = {
    "one": Stage("one", (), ("seed",), 1),
    "two": Stage("two", ("one",), (), 1),
    "three": Stage("three", ("one", "two"), (), 1),
}


def rows_of(group) -> pd.DataFrame:
    return pd.DataFrame({"key": [f"k{i}" for i in group], "value": list(group)})


def modules_of(runs: list | None = None, seconds: float = 0.0) -> dict[str, types.ModuleType]:
    """Modules by name, for `sys.modules`. runs: takes down what is made; seconds: a shard's."""
    runs = [] if runs is None else runs

    def make(group) -> pd.DataFrame:
        runs.append(list(group))
        select.select([], [], [], seconds)  # a pause that no false clock shortens
        return rows_of(group).assign(value=lambda rows: rows.value + make.seed)

    def one(params, workspace, recipe):
        if params.seed < 0:
            raise ValueError("a setting that can't work")
        make.seed = params.seed
        rows = write_shards(workspace.folder("one"), recipe, split(range(6), 2), make, SCHEMA)
        return Output({"rows": 6}, rows)

    def total(params, workspace, recipe):
        return Output({"total": int(read_shards(workspace.folder("one")).value.sum())})

    modules = {}
    for name, run in (("one", one), ("two", total), ("three", total)):
        module = modules[f"ml.pipeline.stages.{name}"] = types.ModuleType(
            f"ml.pipeline.stages.{name}"
        )
        module.run = run
    return modules


def put_in_place(monkeypatch, root: Path, runs: list | None = None):
    """(run(stage, seed, force) in a root, its workspace, the groups made so far), for a test."""
    runs = [] if runs is None else runs
    for name, module in modules_of(runs).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(stages, "STAGE", TABLE)
    files.say.cache_clear()
    params = load_params()

    def run(stage: str, seed: int = 0, force: bool = False):
        return run_stage(stage, dataclasses.replace(params, seed=seed), root, force=force)

    return run, Workspace(root, "micro"), runs


def start(root: Path, seed: int, seconds: float) -> subprocess.Popen:
    """Makes `one` in a process group of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.builders.small_stages", str(root), str(seed), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def recipe(manifest: Manifest) -> dict:
    return {key: getattr(manifest, key) for key in ("stage", "version", "params", "inputs")}


if __name__ == "__main__":
    place, number, pause = place_of(sys.argv[1]), int(sys.argv[2]), float((*sys.argv, 0)[3])
    sys.modules.update(modules_of(seconds=pause))
    stages.STAGE = TABLE
    print("ready", flush=True)
    run_stage("one", dataclasses.replace(load_params(), seed=number), place)
