"""A workspace's folders: nothing finished is lost, and nothing of others is deleted."""

import dataclasses
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import ml.pipeline.runner as stages
from ml.errors import ManifestError
from ml.pipeline.runner import run_stage
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from ml.store import files
from ml.store.files import HOST, atomic, read_json, settle, write_json
from ml.store.manifest import Manifest, read_manifest
from ml.store.successor import Successor
from tests.builders.small_stages import recipe, start, until


def content(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


# --- nothing finished is deleted before its successor is there ------------------------------------


@pytest.mark.parametrize("force", [False, True])
def test_settings_that_cannot_work_leave_the_finished_folder(small, force):
    run, workspace, runs = small
    run("one")
    before, state = content(workspace.folder("one")), content(workspace.state("one"))
    with pytest.raises(ValueError, match="can't work"):
        run("one", -1, force)
    assert content(workspace.folder("one")) == before
    assert content(workspace.state("one")) == state
    assert run("one").cached and len(runs) == 3


def test_a_real_stage_that_its_settings_refuse_leaves_the_folder(tmp_path):
    base = load_params("ci")
    first = run_stage("prompts", base, tmp_path)
    bad = dataclasses.replace(base.prompts, texts=str(tmp_path / "words.txt"))
    (tmp_path / "words.txt").write_text("neither a class nor a word of one\n")
    with pytest.raises(ValueError):
        run_stage("prompts", dataclasses.replace(base, prompts=bad), tmp_path)
    again = run_stage("prompts", base, tmp_path)
    assert again.cached and again.digest == first.digest


def killed_at(number: int, work) -> int:
    """Runs `work` in a child that is killed before its n-th rename or deletion; its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0

    def deadly(call):
        def called(*arguments, **keywords):
            nonlocal count
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **keywords)

        return called

    for name in ("rename", "replace", "unlink", "rmdir"):
        setattr(os, name, deadly(getattr(os, name)))
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


def test_a_kill_at_any_step_loses_neither_the_old_folder_nor_the_new_one(tmp_path):
    """Every rename and deletion of the replacement is tried, until one run gets through."""
    old, new = {"a": b"old", "sub/b": b"old"}, {"a": b"new", "sub/b": b"new"}
    for number in range(1, 60):
        root = tmp_path / str(number)
        successor = Successor(root, "one")
        recipes = {
            text: {"stage": "one", "version": 1, "params": {"is": text}, "inputs": {}}
            for text in ("old", "new")
        }

        def make(which: dict, text: str, successor=successor, recipes=recipes) -> str:
            successor.settle()
            successor.start(recipes[text], False)
            (successor.new / ".progress").mkdir(exist_ok=True)
            (successor.new / ".progress" / "training.pt").touch()
            for name, data in which.items():
                (successor.new / name).parent.mkdir(parents=True, exist_ok=True)
                (successor.new / name).write_bytes(data)
            manifest = Manifest(
                **recipes[text], facts={}, files=stages.describe_files(successor.new, {})
            )
            successor.finish(manifest, {"seconds": 1.0, "peak_rss_mb": 1.0})
            return manifest.digest

        first = make(old, "old")
        status = killed_at(number, lambda make=make: make(new, "new"))
        whole = (successor.new / "manifest.json").exists()
        worked = (successor.new / "sub" / "b").exists()
        goes_on = (successor.new / ".progress" / "training.pt").exists()
        successor.settle()
        found = read_manifest(successor.folder)  # whole, whichever it is
        made = read_json(successor.state / "made.json", dict)
        assert found.digest == made["digest"]
        assert {name: (successor.folder / name).read_bytes() for name in old} in (old, new)
        assert (found.digest == first) == ((successor.folder / "a").read_bytes() == b"old")
        if whole:
            assert found.digest != first, "what has its manifest is not made again"
        elif worked and found.digest == first:
            assert goes_on, "a training keeps its checkpoint until then"
        second = make(new, "new")
        assert read_manifest(successor.folder).digest == second != first
        assert sorted(p.name for p in root.iterdir()) == [".making", ".state", "one"]
        assert not list((root / ".making").iterdir())
        if status == 0:
            break
    assert status == 0 and number > 10


@pytest.mark.parametrize("number", range(1, 8))
def test_a_kill_while_a_folder_is_replaced_leaves_one_of_the_two(tmp_path, number):
    """What `promotion` does with the champion's record."""
    path = tmp_path / "champion"

    def put(text: str) -> None:
        with atomic(path) as temporary:
            temporary.mkdir()
            (temporary / "record.json").write_text(text)
            (temporary / "scores").write_text(text)

    put("old")
    killed_at(number, lambda: put("new"))
    settle(path)
    texts = {(path / name).read_text() for name in ("record.json", "scores")}
    assert texts in ({"old"}, {"new"})
    put("newest")
    assert [p.name for p in tmp_path.iterdir()] == ["champion"]


def test_a_failed_rename_puts_the_old_folder_back(tmp_path, monkeypatch):
    path, real = tmp_path / "x", os.rename
    for text in ("old", "new"):
        (tmp_path / text).mkdir()
        (tmp_path / text / "a").write_text(text)
    files.replace_folder(tmp_path / "old", path)

    def full(source, target):
        if Path(target) == path and Path(source).name == "new":
            raise OSError("disk quota exceeded")
        real(source, target)

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(OSError, match="quota"):
        files.replace_folder(tmp_path / "new", path)
    assert (path / "a").read_text() == "old"


@pytest.mark.parametrize("shards", [1, 2])
def test_a_killed_run_goes_on_with_what_it_had(tmp_path, small, shards):
    """A real process group, SIGKILLed between two shards."""
    run, workspace, runs = small
    half = Successor(workspace.data, "one").new
    process = start(tmp_path, 0, 0.7)
    until(lambda: len(list(half.glob(".shard-*.json"))) >= shards)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = len(list(half.glob(".shard-*.json")))
    assert not workspace.folder("one").exists()
    report = run("one")
    assert not report.cached and len(runs) == 3 - kept
    assert not list((workspace.data / ".making").iterdir())
    assert read_manifest(workspace.folder("one")).digest == report.digest


# --- only what we made is deleted -----------------------------------------------------------------


def own_photographs(folder: Path) -> None:
    (folder / "day 1").mkdir(parents=True)
    (folder / "day 1" / "cat.jpg").write_bytes(b"irreplaceable")


def own_manifest(folder: Path) -> None:
    """Of a web extension, say."""
    own_photographs(folder)
    (folder / "manifest.json").write_text('{"manifest_version": 3, "name": "mine"}')


def own_shards(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "shard-00000.parquet").write_bytes(b"irreplaceable")


def own_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"irreplaceable")


@pytest.mark.parametrize("put", [own_photographs, own_manifest, own_shards, own_file])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_the_users_own_is_refused_at_the_first_stage(small, put, force):
    run, workspace, runs = small
    put(workspace.folder("two"))
    path = workspace.folder("two")
    before = content(path) if path.is_dir() else path.read_bytes()
    for stage in ("one", "two"):
        with pytest.raises(ManifestError, match="two is in the way.*move it elsewhere"):
            run(stage, force=force)
    assert before == (content(path) if path.is_dir() else path.read_bytes()) and not runs


def test_labelled_photographs_in_the_workspace_are_refused_by_the_real_table(tmp_path):
    """benchmark.root = data/<profile>."""
    own_photographs(tmp_path / "data" / "ci" / "images")
    with pytest.raises(ManifestError, match="images is in the way"):
        run_stage("prompts", load_params("ci"), tmp_path)
    assert content(tmp_path / "data") == {"ci/images/day 1/cat.jpg": b"irreplaceable"}


@pytest.mark.parametrize("force", [False, True])
def test_what_others_put_into_a_folder_of_ours_outlives_it(small, force, capsys):
    run, workspace, _ = small
    run("one")
    folder = workspace.folder("one")
    own_photographs(folder / "mine")
    (folder / "shard-00009.parquet").write_bytes(b"irreplaceable")
    (folder / ".hidden").write_bytes(b"irreplaceable")
    run("one", 0 if force else 1, force)
    for name in (".hidden", "mine/day 1/cat.jpg"):
        assert (folder / name).read_bytes() == b"irreplaceable"
    aside = workspace.data / ".strays" / "one"
    assert (aside / "shard-00009.parquet").read_bytes() == b"irreplaceable", "not read as data"
    assert "shard-00009.parquet was not made by the stage 'one'" in capsys.readouterr().err
    (folder / "shard-00009.parquet").write_bytes(b"another")
    assert run("one", 3).facts == {"rows": 6} and run("two", 3).facts == {"total": 33}
    assert (aside / "1-shard-00009.parquet").read_bytes() == b"another"
    assert (folder / "mine/day 1/cat.jpg").read_bytes() == b"irreplaceable"


@pytest.mark.parametrize("name", ["one", ".making", ".making/one"])
def test_links_into_other_folders_are_not_followed(small, tmp_path, name):
    run, workspace, _ = small
    run("one")
    elsewhere = tmp_path / "elsewhere"
    shutil.rmtree(workspace.data / ".making")
    place = workspace.data / name
    if name == "one":
        workspace.folder("one").rename(elsewhere)
    else:
        own_photographs(elsewhere)
        place.parent.mkdir(exist_ok=True)
    place.symlink_to(elsewhere)
    before = content(elsewhere)
    if name == "one":
        assert run("one").cached, "reading through a link is fine"
    with pytest.raises(ManifestError, match="symbolic link|in the way"):
        run("one", 1, force=True)
    assert content(elsewhere) == before


def test_a_folder_without_a_marker_is_not_replaced_by_atomic(tmp_path):
    own_photographs(tmp_path / "out")
    with (
        pytest.raises(ValueError, match="out holds day 1, which would be deleted"),
        atomic(tmp_path / "out") as temporary,
    ):
        temporary.mkdir()
        (temporary / "config.json").write_text("{}")
    assert content(tmp_path) == {"out/day 1/cat.jpg": b"irreplaceable"}


@pytest.mark.parametrize("root", ["file", "file/deeper"])
def test_a_root_that_is_a_file_is_one_clear_error(small, tmp_path, root):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="expected a folder: --root"):
        run_stage("one", load_params(), tmp_path / root)


def test_half_written_files_of_the_dead_are_cleared_and_of_the_living_are_left(tmp_path):
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead, living, abroad = (
        tmp_path / f".a.json.{host}.{number}.tmp"
        for host, number in ((HOST, gone.pid), (HOST, os.getppid()), ("elsewhere", gone.pid))
    )
    for path in (dead, living, abroad):
        path.write_text("half")
    write_json(tmp_path / "a.json", 1)
    assert not dead.exists() and living.exists() and abroad.exists()


# --- what earlier versions left -------------------------------------------------------------------


def old_layout(workspace: Workspace) -> None:
    """As run_stage left a folder when it still wrote in the final place: recipe.json in the state,
    no made.json, neither locks nor successors."""
    state = workspace.state("one")
    manifest = read_manifest(workspace.folder("one"))
    (state / "made.json").unlink()
    write_json(state / "recipe.json", recipe(manifest))
    shutil.rmtree(workspace.data / ".locks")
    shutil.rmtree(workspace.data / ".making")


def test_a_folder_of_an_earlier_version_is_found_done(small):
    run, workspace, runs = small
    first = run("one")
    old_layout(workspace)
    again = run("one")
    assert again.cached and again.digest == first.digest and again.seconds == first.seconds
    assert run("two").facts == {"total": 15} and len(runs) == 3
    assert run("one", 1).facts == {"rows": 6}, "and replaced when other settings ask for it"


def test_what_an_earlier_version_left_half_made_keeps_its_shards(small):
    run, workspace, runs = small
    first = run("one")
    old_layout(workspace)
    for name in ("manifest.json", "metrics.json", "shard-00002.parquet", ".shard-00002.json"):
        (workspace.folder("one") / name).unlink()
    runs.clear()
    assert run("one").digest == first.digest and runs == [[4, 5]]
