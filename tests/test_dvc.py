"""DVC on a copy of the checkout: repro without Dagster, seal, push, pull, metrics, plots."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import handmade
import pytest
import yaml

from ml.manifest import read_manifest
from ml.params import ROOT
from ml.stages import STAGES, Workspace
from orchestration import versioning

FILES = ("ml", "params.yaml", "dvc.yaml", ".dvcignore", ".gitignore", "profiles")


def call(root: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=root, capture_output=True, text=True,
                          env=os.environ | {"PATH": path})
    assert done.returncode == 0, f"{command}: {done.stdout[-1500:]} {done.stderr[-1500:]}"
    return done.stdout


def dvc(root: Path, *arguments: str) -> str:
    return call(root, sys.executable, "-m", "dvc", *arguments)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A git checkout of the project with the ci profile's settings as its default, all stages
    done by hand."""
    root = tmp_path_factory.mktemp("checkout")
    for name in FILES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, root / name)
    (root / ".dvc").mkdir()
    for name in ("config", ".gitignore"):
        shutil.copyfile(ROOT / ".dvc" / name, root / ".dvc" / name)
    call(root, "git", "init", "--quiet")
    call(root, "git", "add", ".")
    call(root, "git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit",
         "--quiet", "-m", "checkout")
    params = handmade.params_of(Workspace(root, "micro"))
    (root / "params.yaml").write_text(yaml.safe_dump(dataclasses.asdict(params)))
    handmade.all_stages(root, "micro")
    return root


def test_repro_runs_stages_without_dagster(checkout):
    shutil.rmtree(checkout / "data" / "micro" / "prompts")
    out = dvc(checkout, "repro", "prompts", "benchmark")
    assert "python -m ml prompts" in out
    again = dvc(checkout, "repro", "prompts", "benchmark")
    assert "Stage 'prompts' didn't change, skipping" in again


def test_repro_needs_no_activated_environment(checkout):
    """`.venv/bin/dvc repro` as the README has it: the stage runs in .venv, not in what PATH has."""
    (checkout / ".venv").symlink_to(Path(sys.executable).parent.parent)
    shutil.rmtree(checkout / "data" / "micro" / "prompts")
    bare = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run([".venv/bin/dvc", "repro", "prompts"], cwd=checkout, capture_output=True,
                          text=True, env=bare | {"PATH": "/usr/bin:/bin"})
    (checkout / ".venv").unlink()
    assert done.returncode == 0, done.stderr
    assert read_manifest(Workspace(checkout, "micro").folder("prompts"))


def test_seal_commits_push_and_pull_restore(checkout, tmp_path):
    workspace = Workspace(checkout, "micro")
    sealed = versioning.sealed_stages()
    assert sealed == [s.name for s in STAGES if s.name in sealed] and "images" in sealed
    assert versioning.seal(workspace)["sealed"] == ", ".join(sealed)
    assert versioning.seal(workspace)["sealed"] == "was sealed already"
    assert json.loads(dvc(checkout, "status", "--json", *sealed)) == {}
    lock = yaml.safe_load((checkout / "dvc.lock").read_text())
    assert set(lock["stages"]) == set(sealed)
    assert not list((checkout / "data").rglob(".gitignore"))
    status = call(checkout, "git", "status", "--porcelain", "--", "data/micro")
    assert status == "", "DVC's data must stay out of git"

    dvc(checkout, "remote", "add", "--local", "--default", "--force", "store",
        str(tmp_path / "store"))
    dvc(checkout, "push", *sealed)
    digests = {name: read_manifest(workspace.folder(name)).digest for name in sealed}
    for name in sealed:
        shutil.rmtree(workspace.folder(name))
    shutil.rmtree(checkout / ".dvc" / "cache")
    dvc(checkout, "pull", *sealed)
    assert digests == {name: read_manifest(workspace.folder(name)).digest for name in sealed}
    out = call(checkout, sys.executable, "-m", "ml", "prompts")
    assert "prompts: up to date" in out, "a pulled stage is done"


def test_metrics_and_plots_are_shown(checkout, tmp_path):
    shown = json.loads(dvc(checkout, "metrics", "show", "--json"))
    files = shown[""]["data"]
    scores = files["data/micro/benchmark_scores/metrics.json"]["data"]
    assert scores["synthetic"]["harmonic"] == 58.0
    assert files["data/micro/grounding_scores/metrics.json"]["data"]["ours"]["one_seen"] == 80.0
    dvc(checkout, "plots", "show", "--out", str(tmp_path / "plots"))
    page = (tmp_path / "plots" / "index.html").read_text()
    assert "Segmenter, training loss" in page


def test_dag_is_drawn(checkout):
    assert '"prompts" -> "images";' in dvc(checkout, "dag", "--dot")


def test_other_profiles_are_not_sealed(checkout):
    shown = versioning.seal(Workspace(checkout, "ci"))
    assert shown["sealed"] == "skipped" and "data/ci" in shown["reason"]


def test_without_git_the_reason_says_what_to_do(checkout, tmp_path):
    shutil.copyfile(checkout / "dvc.yaml", tmp_path / "dvc.yaml")
    shutil.copytree(checkout / ".dvc", tmp_path / ".dvc",
                    ignore=shutil.ignore_patterns("cache", "tmp"))
    reason = versioning.seal(Workspace(tmp_path, "micro"))["reason"]
    assert "not a git checkout" in reason and "core.no_scm true" in reason
    dvc_config = tmp_path / ".dvc" / "config.local"
    dvc_config.write_text("[core]\n    no_scm = true\n")
    assert versioning.reason_to_skip(Workspace(tmp_path, "micro")) == ""


def test_a_refusal_is_told_in_dvcs_words(checkout):
    with pytest.raises(versioning.SealError, match="no_such_stage"):
        versioning.dvc(["commit", "no_such_stage"], checkout)
