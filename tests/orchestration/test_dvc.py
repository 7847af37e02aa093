"""DVC on a copy of the checkout: repro without Dagster, seal, push, pull, metrics, plots."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from ml.errors import ManifestError, QualityError, WorkspaceBusy
from ml.pipeline.table import STAGES
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT
from ml.store import locks
from ml.store.files import write_json
from ml.store.manifest import read_manifest
from ml.store.stage_places import lock_of
from orchestration import versioning
from tests.builders import handmade

FILES = ("ml", "params.yaml", "dvc.yaml", ".dvcignore", ".gitignore", "profiles")


def call(root: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
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
    params = handmade.params_of(Workspace(root, "micro"))
    (root / "params.yaml").write_text(yaml.safe_dump(dataclasses.asdict(params)))
    handmade.foundation(root)
    call(root, "git", "init", "--quiet")
    call(root, "git", "add", ".")
    call(
        root,
        "git",
        "-c",
        "user.name=test",
        "-c",
        "user.email=test@localhost",
        "commit",
        "--quiet",
        "-m",
        "checkout",
    )
    handmade.all_stages(root, "micro")
    return root


def test_repro_runs_stages_without_dagster(checkout):
    shutil.rmtree(checkout / "data" / "micro" / "prompts")
    out = dvc(checkout, "repro", "prompts", "benchmark")
    assert "python -m ml prompts" in out
    again = dvc(checkout, "repro", "prompts", "benchmark")
    assert "prompts: up to date" in again


def test_repro_needs_no_activated_environment(checkout):
    """`.venv/bin/dvc repro` as the README has it: the stage runs in .venv, not in what PATH has."""
    (checkout / ".venv").symlink_to(Path(sys.executable).parent.parent)
    shutil.rmtree(checkout / "data" / "micro" / "prompts")
    bare = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    done = subprocess.run(
        [".venv/bin/dvc", "repro", "prompts"],
        cwd=checkout,
        capture_output=True,
        text=True,
        env=bare | {"PATH": "/usr/bin:/bin"},
    )
    (checkout / ".venv").unlink()
    assert done.returncode == 0, done.stderr
    assert read_manifest(Workspace(checkout, "micro").folder("prompts"))


def test_repro_has_the_stages_own_notion_of_stale(checkout):
    """A stage's version is in no file that DVC hashes; asked, the stage knows."""
    table = checkout / "ml" / "pipeline" / "table.py"
    before = table.read_text()
    dvc(checkout, "repro", "prompts")
    head, tail = before.split('name="prompts"', 1)
    table.write_text(head + 'name="prompts"' + tail.replace("version=1,", "version=41,", 1))
    try:
        assert "prompts: done in" in dvc(checkout, "repro", "prompts")
        assert read_manifest(Workspace(checkout, "micro").folder("prompts")).version == 41
    finally:
        table.write_text(before)
    dvc(checkout, "repro", "prompts")


def test_sharing_as_it_is_documented(checkout, tmp_path):
    """docs/sharing.md, line by line: what was sealed here is done in a fresh clone."""
    workspace, names = Workspace(checkout, "micro"), [stage.name for stage in STAGES]
    shown = versioning.seal(workspace)  # what `make run` does last
    assert shown["sealed"] == ", ".join(names)
    assert versioning.seal(workspace)["sealed"] == "was sealed already"
    (workspace.state("sealed_data") / "seal.json").write_text('{"digests": ')
    assert versioning.seal(workspace) == shown, "a damaged note is none"
    assert set(yaml.safe_load((checkout / "dvc.lock").read_text())["stages"]) == set(names)
    assert call(checkout, "git", "status", "--porcelain", "--", "data/micro") == "", (
        "DVC's data must stay out of git"
    )
    text = (ROOT / "docs" / "sharing.md").read_text()
    giving, taking = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    copy = tmp_path / "copy"
    walk(giving, checkout, tmp_path)
    out = walk(taking.replace("cd copy\n", ""), copy, tmp_path, checkout)
    assert [f"{name}: up to date" in out for name in names] == [True] * len(names)
    for name in names:
        assert (
            read_manifest(Workspace(copy, "micro").folder(name)).digest
            == read_manifest(workspace.folder(name)).digest
        )
    json.loads(dvc(copy, "data", "status", "--json"))


def walk(block: str, folder: Path, outside: Path, source: Path | None = None) -> str:
    """Runs a documented block but for `make`, with this environment; returns what it printed."""
    out = ""
    for line in block.splitlines():
        command = shlex.split(line, comments=True)
        if command[0] == "make":
            continue
        if command[:2] == ["git", "clone"]:
            call(outside, "git", "clone", "--quiet", str(source), str(folder))
            continue
        if command[0].startswith(".venv/bin/"):
            program = command[0].removeprefix(".venv/bin/")
            command[:1] = [sys.executable, *([] if program == "python" else ["-m", program])]
        if command[:2] == ["git", "commit"]:
            command[1:1] = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
        out += call(
            folder, *(str(outside / "store") if part == "/mnt/store" else part for part in command)
        )
    return out


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


def test_what_failed_its_checks_or_is_damaged_is_not_sealed(checkout):
    workspace = Workspace(checkout, "micro")
    (workspace.state("sealed_data") / "seal.json").unlink(missing_ok=True)
    lock = checkout / "dvc.lock"
    before = lock.read_bytes() if lock.is_file() else None
    digest = read_manifest(workspace.folder("synthetic_dataset")).digest
    note = workspace.state("synthetic_dataset") / "quality.json"
    write_json(note, {"digest": digest, "passed": False, "failures": ["few of a class"]})
    with pytest.raises(QualityError, match="'sealed_data' refuses.*few of a class"):
        versioning.seal(workspace)
    note.unlink()
    shard = workspace.folder("images") / "shard-00000.parquet"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ManifestError, match=r"shard-00000\.parquet"):
        versioning.seal(workspace)
    shard.write_bytes(whole)
    assert before == (lock.read_bytes() if lock.is_file() else None)


def test_no_stage_is_made_from_judging_to_the_commit(checkout, monkeypatch):
    workspace, tried = Workspace(checkout, "micro"), []
    (workspace.state("sealed_data") / "seal.json").unlink(missing_ok=True)
    monkeypatch.setattr(locks, "GRACE", -1.0)

    def make_all():
        for stage in STAGES:
            with lock_of(workspace.data, stage.name) as lock, pytest.raises(WorkspaceBusy):
                lock.write()
            tried.append(stage.name)

    def commit(arguments, root):
        make_all()
        raise versioning.SealError("far enough")

    monkeypatch.setattr(versioning, "dvc", commit)
    with pytest.raises(versioning.SealError, match="far enough"):
        versioning.seal(workspace, make_all)
    assert tried == [stage.name for stage in STAGES] * 2
    with lock_of(workspace.data, "prompts") as lock:
        lock.write()  # given back


def test_a_stage_that_is_being_made_is_waited_for(checkout, monkeypatch):
    workspace, waits = Workspace(checkout, "micro"), []
    monkeypatch.setattr(locks, "GRACE", -1.0)

    def judge():
        assert waits
        raise versioning.SealError("far enough")

    with lock_of(workspace.data, "images") as maker:
        maker.write()

        def wait(seconds):
            waits.append(seconds)
            maker.__exit__()

        monkeypatch.setattr(time, "sleep", wait)
        with pytest.raises(versioning.SealError, match="far enough"):
            versioning.seal(workspace, judge)


def test_other_profiles_are_not_sealed(checkout):
    shown = versioning.seal(Workspace(checkout, "ci"))
    assert shown["sealed"] == "skipped" and "data/ci" in shown["reason"]


def test_without_git_the_reason_says_what_to_do(checkout, tmp_path):
    shutil.copyfile(checkout / "dvc.yaml", tmp_path / "dvc.yaml")
    shutil.copytree(
        checkout / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp")
    )
    reason = versioning.seal(Workspace(tmp_path, "micro"))["reason"]
    assert "not a git checkout" in reason and "core.no_scm true" in reason
    dvc_config = tmp_path / ".dvc" / "config.local"
    dvc_config.write_text("[core]\n    no_scm = true\n")
    assert versioning.reason_to_skip(Workspace(tmp_path, "micro")) == ""


def test_a_refusal_is_told_in_dvcs_words(checkout):
    with pytest.raises(versioning.SealError, match="no_such_stage"):
        versioning.dvc(["commit", "no_such_stage"], checkout)
