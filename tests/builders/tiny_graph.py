"""A finished workspace of the whole graph in seconds: every stage run for real, with settings of a
few pictures and steps. Its scores mean nothing."""

import os
import re
import shutil
from pathlib import Path

from ml.pipeline.runner import run_stage
from ml.pipeline.table import STAGE
from ml.pipeline.workspace import Workspace
from ml.quality.rules import RULES
from ml.quality.verdicts import Result, Verdict, keep_verdict
from ml.settings.params import Params
from ml.settings.profile import load_params
from ml.store.manifest import read_manifest

PROFILE = """
base: ci
prompts: {train_one: 8, train_two: 8, sim_per_cell: 2, synthetic_one: 4, synthetic_two: 4}
shards: {size: 8}
diffusion: {steps: 2}
triplets: {min_score: 0, min_area: 0, max_area: 1, min_std: 0, duplicate_bits: 0}
grounding: {steps: 4, evaluate_every: 2, batch_size: 4, evidence_timesteps: [250]}
synthetic: {ignore_band: [0.499, 0.501], min_area: 0, max_ignore: 1}
segmenter: {steps: 4, batch_size: 2, scale: 1}
benchmark: {bootstrap: 10, daam_thresholds: 3}
promotion: {min_grounding: 0, min_segmenter: 0}
"""


def write_profile(folder: Path) -> Path:
    file = folder / "tiny.yaml"
    file.write_text(PROFILE)
    return file


def make(root: Path) -> tuple[Params, Workspace]:
    """All stages in a root, and a verdict on each that the checks judge: passed, so that what
    follows is about files."""
    params = load_params(str(write_profile(root)))
    workspace = Workspace(root, params.profile)
    for name in STAGE:
        run_stage(name, params, root)
        if name in RULES:
            digest = read_manifest(workspace.folder(name)).digest
            passed = Result("rows", True, 1, "more than 0", 0.0, [])
            keep_verdict(Verdict(name, digest, [passed], workspace.data), 0.1, params, workspace)
    return params, workspace


def copy(workspace: Workspace, root: Path) -> Workspace:
    """The same workspace in another root, by hard links; the locks are left behind."""
    shutil.copytree(
        workspace.data,
        root / "data" / workspace.profile,
        copy_function=os.link,
        ignore=shutil.ignore_patterns(".locks"),
    )
    return Workspace(root, workspace.profile)


def kinds(folder: Path) -> dict[str, Path]:
    """One file of every kind below a folder, by its relative name with numbers as N."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found.setdefault(re.sub(r"\d{3,}", "N", path.relative_to(folder).as_posix()), path)
    return found
