"""Copies of a finished workspace with one stage's folder poisoned, and what the checks say."""

import dataclasses
import importlib
import os
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.poisons.kind import Poison
from benchmarks.poisons.rules import breaks
from ml.pipeline.workspace import Workspace
from ml.quality.rules import RULES, bounds
from ml.quality.tables import TABLES
from ml.settings.params import Params
from ml.store.files import sha256_json
from ml.store.manifest import describe_files, read_manifest, write_manifest
from ml.store.schemas import BENCHMARK, IMAGES, MASKS, PROMPTS, SYNTHETIC, TRIPLETS
from ml.store.shards import read_shards, split, write_shard
from ml.store.sidecars import shard_name

SCHEMAS = {"prompts": PROMPTS, "images": IMAGES, "masks": MASKS, "triplets": TRIPLETS,
           "synthetic_dataset": SYNTHETIC, "benchmark": BENCHMARK}  # fmt: skip


def replace_folder(source: Path, target: Path) -> None:
    """Hard links of a folder's files in the place of another folder."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link)


def copy_of(workspace: Workspace, root: Path) -> Workspace:
    """Hard links of the folders that checks read: no file of it may be written in place."""
    copy = Workspace(root, workspace.profile)
    for stage in SCHEMAS:
        replace_folder(workspace.folder(stage), copy.folder(stage))
    return copy


def put_rows(workspace: Workspace, stage: str, rows: pd.DataFrame, params: Params) -> None:
    """A stage's folder anew, of these rows, with sidecars and manifest as the stage writes them."""
    folder = workspace.folder(stage)
    made = read_manifest(folder)
    recipe = {n: getattr(made, n) for n in ("stage", "version", "params", "inputs")}
    for path in [*folder.glob("shard-*"), *folder.glob(".shard-*"), folder / "manifest.json"]:
        path.unlink()
    written = {}
    for index, part in enumerate(split(range(len(rows)), params.shards.size)):
        frame, path = rows.iloc[list(part)], folder / shard_name(index)
        written[path.name] = write_shard(path, sha256_json(recipe), frame, SCHEMAS[stage])
    files = describe_files(folder, written)
    write_manifest(folder, dataclasses.replace(made, files=files))


def make_again(workspace: Workspace, stage: str, params: Params) -> None:
    """Runs a stage on its inputs as they are now, poisoned; the recipe is the old one's."""
    folder = workspace.folder(stage)
    made = read_manifest(folder)
    recipe = {n: getattr(made, n) for n in ("stage", "version", "params", "inputs")}
    shutil.rmtree(folder)
    module = importlib.import_module(f"ml.pipeline.stages.{stage}")
    output = module.run(params, workspace, sha256_json(recipe))
    files = describe_files(folder, output.rows)
    write_manifest(folder, dataclasses.replace(made, files=files, facts=output.facts))


def failures(workspace: Workspace, stage: str, params: Params) -> list[str]:
    """The rules of a stage that fail."""
    return broken(stage, TABLES[stage](params, workspace), params)


def broken(stage: str, tables: dict[str, pd.DataFrame], params: Params) -> list[str]:
    """The rules of a stage that fail on its tables."""
    limits = bounds(stage, params)
    return [rule.name for rule in RULES[stage] if breaks(rule, tables[rule.table], limits)]


@cache
def rows_of(workspace: Workspace, stage: str) -> pd.DataFrame:
    """A sound stage's rows with their pixels; not to be changed."""
    return read_shards(workspace.folder(stage), SCHEMAS[stage].names)


def try_poison(
    poison: Poison, level: float, seed: int, clean: Workspace, params: Params, root: Path
) -> list[str]:
    """The rules that catch one poisoned copy, made below `root`; none when it passes."""
    copy = Workspace(root, clean.profile)
    if not copy.data.exists():
        copy = copy_of(clean, root)
    rng = np.random.default_rng([seed, int(1000 * level), len(poison.name)])
    rows = poison.change(rows_of(clean, poison.stage), level, rng, copy)
    put_rows(copy, poison.stage, rows, params)
    found = failures(copy, poison.stage, params)
    if poison.then and not found:
        if poison.name.startswith("pictures"):
            make_again(copy, poison.then, params)
        found = [f"{poison.then}: {name}" for name in failures(copy, poison.then, params)]
    for stage in filter(None, (poison.stage, poison.then)):
        replace_folder(clean.folder(stage), copy.folder(stage))
    return found


def in_short(names: Sequence[str], most: int = 3) -> str:
    """Rules by how often they caught it."""
    counts = pd.Series(list(names), dtype=object).value_counts()
    shown = [f"`{name}`" for name in counts.index[:most]]
    return ", ".join(shown) + (f" and {len(counts) - most} more" if len(counts) > most else "")
