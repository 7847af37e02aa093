"""Sound sets, on which no check may fail: runs from other seeds, and draws from a finished one."""

import dataclasses
import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.poisons.copies import SCHEMAS, copy_of, put_rows, replace_folder
from ml.pipeline.runner import run_stage
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.store.files import sha256_json, write_json
from ml.store.manifest import Manifest, describe_files, read_manifest, write_manifest
from ml.store.shards import read_shards


def run_of(seed: int, finished: Workspace, params: Params, root: Path) -> tuple[Workspace, Params]:
    """A run of the profile from another seed, made below `root` unless it is there already.

    All stages up to `triplets` are run as ever. The synthetic set is drawn and labelled by the
    finished workspace's grounding module, since training one for each seed takes most of a run.
    """
    own = dataclasses.replace(params, profile=f"seed-{seed}", seed=seed)
    workspace = Workspace(root, own.profile)
    for stage in ("benchmark", "prompts", "images", "masks", "triplets"):
        run_stage(stage, own, root)
    replace_folder(finished.folder("grounding_model"), workspace.folder("grounding_model"))
    folder = workspace.folder("synthetic_dataset")
    if not (folder / "manifest.json").is_file():
        made = read_manifest(finished.folder("synthetic_dataset"))
        recipe = {n: getattr(made, n) for n in ("stage", "version", "params", "inputs")}
        module = importlib.import_module("ml.pipeline.stages.synthetic_dataset")
        output = module.run(own, workspace, sha256_json(recipe))
        write_json(folder / "metrics.json", output.facts)
        files = describe_files(folder, output.rows)
        write_manifest(folder, Manifest(**recipe, files=files, facts=output.facts))
    return workspace, own


def finished_runs(params: Params, root: Path) -> list[tuple[Workspace, Params]]:
    """The runs below `root` that are whole, by seed."""
    folders = sorted(
        root.glob("data/seed-*/synthetic_dataset/manifest.json"),
        key=lambda path: int(path.parent.parent.name.removeprefix("seed-")),
    )
    names = [path.parent.parent.name for path in folders]
    return [
        (
            Workspace(root, name),
            dataclasses.replace(params, profile=name, seed=int(name.removeprefix("seed-"))),
        )
        for name in names
    ]


def draws(
    large: Workspace, params: Params, number: int, root: Path
) -> Iterator[tuple[Workspace, Params]]:
    """Sets of the size that `params` ask for, drawn by picture from a larger finished workspace."""
    frames = {
        stage: read_shards(large.folder(stage), SCHEMAS[stage].names)
        for stage in SCHEMAS
        if stage != "benchmark"
    }
    asked = params.prompts
    sizes = {
        "train": asked.train_one + asked.train_two,
        "sim": asked.sim_per_cell,
        "synthetic": asked.synthetic_one + asked.synthetic_two,
    }
    prompts = frames["prompts"]
    group = prompts["purpose"].where(prompts["purpose"] != "sim", prompts["cell"])
    for seed in range(number):
        rng = np.random.default_rng(seed)
        keys = pd.concat(
            [
                part["key"].iloc[np.sort(rng.choice(len(part), sizes[part.purpose.iloc[0]], False))]
                for _, part in prompts.groupby(group)
            ]
        )
        copy = copy_of(large, root)
        for stage, rows in frames.items():
            put_rows(copy, stage, rows[rows["key"].isin(keys)], params)
        yield copy, dataclasses.replace(params, profile=large.profile)
