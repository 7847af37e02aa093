"""A copy of the checkout with a small `params.yaml`, and the workspace of an earlier version."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import yaml

from ml.pipeline.table import STAGES
from ml.settings.profile import ROOT
from ml.store.files import sha256_json

PROFILE = "micro"  # the default one, since no other is sealed in DVC
CUT = {
    "prompts": {
        "train_one": 40,
        "train_two": 40,
        "sim_per_cell": 8,
        "synthetic_one": 40,
        "synthetic_two": 20,
    },
    "shards": {"size": 20},
    "diffusion": {"steps": 4, "batch_size": 20},
    "grounding": {
        "steps": 160,
        "batch_size": 4,
        "evaluate_every": 40,
        "width": 64,
        "layers": 1,
        "patience": 9,
    },
    # A segmenter's config.json names its backbone's path, so its digest depends on that: one place
    # for all checkouts.
    "segmenter": {
        "backbone": str(ROOT / "data" / "foundation" / "micro" / "backbone"),
        "steps": 210,
        "batch_size": 6,
        "poly_power": 0.5,
    },
    "benchmark": {"bootstrap": 100, "daam_thresholds": 10},
    "promotion": {"min_grounding": 0.0, "min_segmenter": 0.0},
}
"""The micro profile cut down: every stage, several shards or checkpoints in each that has them."""
LEFT_OUT = ("docs/", "examples/", "tests/")


def make_checkout(folder: Path, settings: dict | None = None) -> Path:
    """Copies what git tracks, or would, and a git repository that DVC accepts; returns `folder`.

    settings: laid over CUT.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(LEFT_OUT):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for changes in (CUT, settings or {}):
        _lay_over(values, changes)
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    return folder


def _lay_over(values: dict, changes: dict) -> None:
    for key, value in changes.items():
        if isinstance(value, dict):
            _lay_over(values[key], value)
        else:
            values[key] = value


def data_of(checkout: Path) -> Path:
    return checkout / "data" / PROFILE


def age(data: Path) -> None:
    """Makes a finished workspace one that version 0 of every stage left: nothing of it is reused,
    and each folder stands until its successor takes its place. The champions are forgotten."""
    digests = {}
    for stage in STAGES:
        file = data / stage.name / "manifest.json"
        manifest = json.loads(file.read_text())
        manifest |= {"version": 0, "inputs": manifest["inputs"] | _known(digests, manifest)}
        del manifest["digest"]
        digests[stage.name] = manifest["digest"] = sha256_json(manifest)
        file.write_text(json.dumps(manifest))
        made = data / ".state" / stage.name / "made.json"
        made.write_text(json.dumps(json.loads(made.read_text()) | {"digest": manifest["digest"]}))
        for sidecar in (data / stage.name).glob(".shard-*.json"):
            note = json.loads(sidecar.read_text())
            sidecar.write_text(json.dumps(note | {"recipe": "0" * 64}))
    shutil.rmtree(data / "champion", ignore_errors=True)


def _known(digests: dict[str, str], manifest: dict) -> dict[str, str]:
    return {name: digests[name] for name in manifest["inputs"] if name in digests}


def scratch_of(checkout: Path) -> Path:
    """Where the runs of a checkout make temporary folders."""
    return checkout.with_name(f"{checkout.name}.tmp")


def environment(checkout: Path, mark: str) -> dict[str, str]:
    """Of a run in a checkout. mark: found again in every process that descends from it."""
    scratch_of(checkout).mkdir(exist_ok=True)
    return os.environ | {
        "CHAOS_MARK": mark,
        "DAGSTER_HOME": str(checkout / ".dagster"),
        "TMPDIR": str(scratch_of(checkout)),
        "GX_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "true",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
