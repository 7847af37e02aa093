"""What a workspace promises: nothing is lost, nothing is mixed, one writes at a time."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ml.stages as stages
from ml import files
from ml.errors import WorkspaceBusy
from ml.files import HOST, Damaged, atomic, read_json, settle, sha256_json, write_json
from ml.lineage import check_lineage
from ml.locks import FolderLock
from ml.manifest import Manifest, ManifestError, read_manifest, write_manifest
from ml.params import ROOT, load_params
from ml.shards import sidecar
from ml.stages import STAGE, STAGES, QualityError, Workspace, run_stage
from ml.successor import Successor
from tests import small_stages


@pytest.fixture
def small(monkeypatch, tmp_path):
    """(run(stage, seed, force) in tmp_path, the workspace, what was made so far)."""
    runs: list = []
    for name, module in small_stages.modules_of(runs).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(stages, "STAGE", small_stages.TABLE)
    files.say.cache_clear()

    def run(stage: str, seed: int = 0, force: bool = False):
        return run_stage(stage, dataclasses.replace(load_params(), seed=seed), tmp_path,
                         force=force)

    return run, Workspace(tmp_path, "micro"), runs


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in sorted(folder.rglob("*")) if p.is_file()}


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
        recipes = {text: {"stage": "one", "version": 1, "params": {"is": text}, "inputs": {}}
                   for text in ("old", "new")}

        def make(which: dict, text: str, successor=successor, recipes=recipes) -> str:
            successor.settle()
            successor.start(recipes[text], False)
            for name, data in which.items():
                (successor.new / name).parent.mkdir(parents=True, exist_ok=True)
                (successor.new / name).write_bytes(data)
            manifest = Manifest(**recipes[text], facts={},
                                files=stages.describe_files(successor.new, {}))
            write_manifest(successor.new, manifest)
            successor.finish(manifest, {"seconds": 1.0, "peak_rss_mb": 1.0})
            return manifest.digest

        first = make(old, "old")
        status = killed_at(number, lambda make=make: make(new, "new"))
        successor.settle()
        found = read_manifest(successor.folder)  # whole, whichever it is
        made = read_json(successor.state / "made.json", dict)
        assert found.digest == made["digest"]
        assert {name: (successor.folder / name).read_bytes() for name in old} in (old, new)
        assert (found.digest == first) == ((successor.folder / "a").read_bytes() == b"old")
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


def start(root: Path, seed: int, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.small_stages", str(root), str(seed), str(seconds)], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    return process


def until(holds) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


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
    with pytest.raises(ValueError, match="out holds day 1, which would be deleted"), \
            atomic(tmp_path / "out") as temporary:
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
    dead, living, abroad = (tmp_path / f".a.json.{host}.{number}.tmp" for host, number in (
        (HOST, gone.pid), (HOST, os.getppid()), ("elsewhere", gone.pid)))
    for path in (dead, living, abroad):
        path.write_text("half")
    write_json(tmp_path / "a.json", 1)
    assert not dead.exists() and living.exists() and abroad.exists()


# --- inputs were made from one another ------------------------------------------------------------


def test_an_input_made_from_what_was_replaced_is_refused_and_named(small):
    run, workspace, _ = small
    for name in ("one", "two", "three"):
        run(name)
    old = read_manifest(workspace.folder("one")).digest
    run("one", 1)
    now = read_manifest(workspace.folder("one")).digest
    with pytest.raises(ManifestError, match=f"'two' was made from 'one' {old[:12]}, which is "
                                            f"{now[:12]} now. Run `python -m ml two`"):
        run("three", 1)
    assert run("two", 1).facts == run("three", 1).facts == {"total": 21}


def graph(data: Path, vocabulary: str) -> dict[str, Manifest]:
    """A manifest of every stage of the real table, made from one another."""
    made: dict[str, Manifest] = {}
    for stage in STAGES:
        inputs = {name: made[name].digest for name in stage.inputs}
        inputs |= {place: sha256_json(place) for place in stage.models}
        params = {"vocabulary_digest": vocabulary} if "vocabulary" in stage.sections else {}
        params |= {name: 1 for name in stage.sections if name in ("seed", "benchmark.source")}
        made[stage.name] = Manifest(stage.name, 1, params, inputs, {}, {})
        write_manifest(data / stage.name, made[stage.name])
    return made


def upstream(stage: str) -> set[str]:
    return set(STAGE[stage].inputs).union(*map(upstream, STAGE[stage].inputs))


def recipe(manifest: Manifest) -> dict:
    return {key: getattr(manifest, key) for key in ("stage", "version", "params", "inputs")}


EDGES = [(stage.name, name, source) for stage in STAGES for name in sorted(upstream(stage.name))
         for source in STAGE[name].inputs]


def test_every_stage_of_the_table_refuses_every_mixed_edge_above_it(tmp_path):
    names = [stage.name for stage in STAGES]
    made = graph(tmp_path, "v")
    for name in names:
        check_lineage(recipe(made[name]), "v", tmp_path, names)
    assert ("report", "masks", "images") in EDGES and len(EDGES) > 60
    for stage, name, source in EDGES:
        other = dataclasses.replace(made[source], facts={"made": "again"})
        write_manifest(tmp_path / source, other)
        asked = recipe(made[stage])
        if source in asked["inputs"]:  # what a run would read there now
            asked["inputs"] = asked["inputs"] | {source: other.digest}
        with pytest.raises(ManifestError, match=f"'{name}' was made from '{source}'"):
            check_lineage(asked, "v", tmp_path, names)
        write_manifest(tmp_path / source, made[source])


@pytest.mark.parametrize("stage", [s.name for s in STAGES if s.inputs])
def test_every_stage_refuses_another_vocabulary_model_or_seed_above_it(tmp_path, stage):
    names, made = [each.name for each in STAGES], graph(tmp_path, "v")
    asked = recipe(made[stage])
    if "vocabulary_digest" in asked["params"]:
        asked["params"] = asked["params"] | {"vocabulary_digest": "w"}
    with pytest.raises(ManifestError, match="was made with the vocabulary"):
        check_lineage(asked, "w", tmp_path, names)
    for place in STAGE[stage].models:
        if any(place in STAGE[name].models for name in upstream(stage)):
            other = recipe(made[stage])
            other["inputs"] = other["inputs"] | {place: "another"}
            with pytest.raises(ManifestError, match=f"was made with the {place}"):
                check_lineage(other, "v", tmp_path, names)
    if "seed" in asked["params"] and any("seed" in STAGE[n].sections for n in upstream(stage)):
        other = recipe(made[stage])
        other["params"] = other["params"] | {"seed": 2}
        with pytest.raises(ManifestError, match="was made with seed 1, now it is 2"):
            check_lineage(other, "v", tmp_path, names)


def test_a_bound_on_another_backbone_is_not_compared_with_the_segmenter(tmp_path):
    made = graph(tmp_path, "v")
    bound = made["real_bound"]
    bound = dataclasses.replace(bound, inputs=bound.inputs | {"segmenter.backbone": "another"})
    write_manifest(tmp_path / "real_bound", bound)
    asked = recipe(made["benchmark_scores"])
    asked["inputs"] = asked["inputs"] | {"real_bound": bound.digest}
    with pytest.raises(ManifestError, match="segmenter.backbone another, of 'segmenter'"):
        check_lineage(asked, "v", tmp_path, [each.name for each in STAGES])


def test_a_vocabulary_that_grew_is_refused_at_the_command(tmp_path, capsys):
    from ml.__main__ import main

    words, profile = tmp_path / "mine.yaml", tmp_path / "yard.yaml"
    words.write_text("seen: [cat, dog]\nunseen: [bus, car]\n")
    profile.write_text(f"vocabulary: {words}\nprompts: {{train_one: 4, train_two: 2, sim_per_cell: "
                       "1, synthetic_one: 4, synthetic_two: 2}\n")
    call = ["--profile", str(profile), "--root", str(tmp_path)]
    assert main(["prompts", *call]) == 0
    words.write_text("seen: [cat, dog]\nunseen: [bus, car, cow]\n")
    assert main(["images", *call]) == 1
    said = capsys.readouterr().err
    assert "'prompts' was made with the vocabulary" in said and "`python -m ml prompts`" in said


def test_a_folder_under_another_stages_name_is_refused(small):
    run, workspace, _ = small
    run("one")
    run("two")
    shutil.rmtree(workspace.folder("two"))
    shutil.copytree(workspace.folder("one"), workspace.folder("two"))
    with pytest.raises(ManifestError, match="is of the stage 'one'"):
        run("three")


# --- one writes at a time -------------------------------------------------------------------------


def test_a_second_run_is_refused_naming_the_first_and_a_killed_one_holds_nothing(small, tmp_path):
    run, workspace, runs = small
    process = start(tmp_path, 0, 60)
    until(lambda: (workspace.data / ".making" / "one").is_dir())
    began = time.monotonic()
    try:
        with pytest.raises(WorkspaceBusy, match=f"process {process.pid} on .* makes 'one' since"):
            run("one", 1)
        with pytest.raises(WorkspaceBusy, match="one is in use"):
            run("two")
        assert time.monotonic() - began < 10 and not runs
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run("one", 1).facts == {"rows": 6}


def test_readers_do_not_keep_each_other_out_and_keep_a_writer_out(small):
    run, workspace, _ = small
    run("one")
    data = workspace.data
    with FolderLock(data, "two") as other, FolderLock(data, "one") as first:
        other.write()
        first.read()
        assert run("one").cached, "another reader"
        with pytest.raises(WorkspaceBusy, match=f"process {os.getpid()} .* makes 'two'"):
            run("one", 1)
    assert not run("one", 1).cached


def test_a_shard_of_another_recipe_cannot_come_under_a_manifest(small, monkeypatch):
    run, workspace, _ = small
    module = sys.modules["ml.stages.one"]
    sound = module.run

    def disturbed(params, writing, recipe):
        output = sound(params, writing, recipe)
        side = sidecar(writing.folder("one") / "shard-00001.parquet")
        write_json(side, json.loads(side.read_text()) | {"recipe": "of another run"})
        return output

    monkeypatch.setattr(module, "run", disturbed)
    with pytest.raises(ManifestError, match="shard-00001.parquet is not of this run"):
        run("one")
    assert not workspace.folder("one").exists()


def test_an_input_that_changes_meanwhile_is_noticed(small, monkeypatch):
    run, workspace, _ = small
    run("one")
    module = sys.modules["ml.stages.two"]
    sound = module.run

    def slow(params, writing, recipe):
        folder = writing.folder("one")
        made = read_manifest(folder)
        write_manifest(folder, dataclasses.replace(made, facts={"rows": 7}))
        return sound(params, writing, recipe)

    monkeypatch.setattr(module, "run", slow)
    with pytest.raises(ManifestError, match="one changed while 'two' was made from it"):
        run("two")


# --- what is damaged is named and made again alone ------------------------------------------------


@pytest.mark.parametrize("spoil", ["flipped", "lost", "cut off", "sidecar lost"])
def test_one_bad_shard_is_made_again_alone(small, capsys, spoil):
    run, workspace, runs = small
    first = run("one")
    folder = workspace.folder("one")
    path = folder / "shard-00001.parquet"
    kept = {name: (folder / f"shard-0000{name}.parquet").stat().st_ino for name in (0, 2)}
    data = bytearray(path.read_bytes())
    if spoil == "flipped":
        data[len(data) // 2] ^= 1
    path.write_bytes(data[: len(data) // 2] if spoil == "cut off" else bytes(data))
    if spoil in ("lost", "sidecar lost"):
        path.unlink()
    if spoil == "sidecar lost":
        sidecar(path).unlink()
    runs.clear()
    again = run("one")
    assert runs == [[2, 3]] and again.digest == first.digest and not again.cached
    assert "shard-00001.parquet is" in capsys.readouterr().err
    assert kept == {name: (folder / f"shard-0000{name}.parquet").stat().st_ino for name in (0, 2)}


def test_a_stray_file_is_named_and_left(small, capsys):
    run, workspace, runs = small
    run("one")
    stray = workspace.folder("one") / "notes.txt"
    stray.write_text("mine")
    assert run("one").cached and run("two").facts == {"total": 15}
    assert "notes.txt was not made by the stage 'one'" in capsys.readouterr().err
    assert stray.read_text() == "mine" and len(runs) == 3


def test_a_stray_that_would_be_read_along_is_refused_where_it_is_read(small):
    run, workspace, runs = small
    run("one")
    stray = workspace.folder("one") / "shard-00003.parquet"
    shutil.copyfile(workspace.folder("one") / "shard-00000.parquet", stray)
    assert run("one").cached and len(runs) == 3
    with pytest.raises(ManifestError, match="shard-00003.parquet was not made by the stage 'one'"):
        run("two")
    assert stray.exists()


BROKEN = {"an empty object": "{}", "a list": "[]", "empty": "", "half": '{"seconds": 1',
          "null": "null", "a word": "whole", "of other types":
          '{"seconds": "1", "peak_rss_mb": [], "digest": 3, "passed": "yes", "stage": 1, '
          '"files": 3, "recipe": 1, "sha256": 2, "rows": true, "failures": 0, "inputs": 1, '
          '"model": 0, "score": "x", "test_set": 0, "scores_sha256": 0}',
          "no text": b"\xff\xfe\x00"}


@pytest.fixture(params=BROKEN.values(), ids=BROKEN)
def broken(request):
    return lambda path: path.write_bytes(
        request.param if isinstance(request.param, bytes) else request.param.encode())


def test_notes_that_cannot_be_read_count_as_absent(small, broken, capsys):
    run, workspace, runs = small
    first = run("one")
    for name in ("timing.json", "made.json"):
        broken(workspace.state("one") / name)
    report = run("one")
    assert report.cached and report.seconds == 0 and report.digest == first.digest
    assert "timing.json" in capsys.readouterr().err
    broken(sidecar(workspace.folder("one") / "shard-00001.parquet"))
    assert run("one").cached, "sidecars serve the making"
    assert run("one", force=True).digest == first.digest
    half = Successor(workspace.data, "one")
    with pytest.raises(ValueError, match="can't work"):
        run("one", -1)
    broken(half.note)
    assert run("one", 1).facts == {"rows": 6} and not half.note.exists()


def test_a_manifest_that_cannot_be_read_is_made_again_with_its_shards(small, broken):
    run, workspace, runs = small
    first = run("one")
    broken(workspace.folder("one") / "manifest.json")
    with pytest.raises(ManifestError, match=r"manifest\.json"):
        run("two")
    assert run("one").digest == first.digest and len(runs) == 3, "no shard was made again"


def test_a_verdict_that_cannot_be_read_is_no_pass(small, broken):
    run, workspace, _ = small
    run("one")
    broken(workspace.state("one") / "quality.json")
    with pytest.raises(QualityError, match="no readable verdict.*quality.json"):
        run("two")
    (workspace.state("one") / "quality.json").unlink()
    assert run("two").facts == {"total": 15}


def test_a_champions_record_that_cannot_be_read_is_one_clear_error(tmp_path, broken):
    from ml.stages.promotion import champion_folder, champion_record

    workspace = Workspace(tmp_path, "micro")
    assert champion_record(workspace, "segmenter") is None
    file = champion_folder(workspace, "segmenter") / "record.json"
    file.parent.mkdir(parents=True)
    broken(file)
    with pytest.raises(ValueError, match=r"record\.json.*who is champion.*remove"):
        champion_record(workspace, "segmenter")
    with pytest.raises(Damaged, match="record.json"):
        read_json(file, {"digest": str})


def test_a_note_of_the_studies_that_cannot_be_read_is_absent(tmp_path, broken):
    from ml.paper.lab import make_lab

    lab = make_lab("quick", tmp_path, 1)
    path = lab.table_path("x")
    write_json(path, 1)
    lab.sign(path, "recipe")
    assert lab.in_place(path, "recipe") and not lab.in_place(path, "other")
    broken(path.with_name(f".{path.name}.recipe.json"))
    assert not lab.in_place(path, "recipe")


# --- trainings ------------------------------------------------------------------------------------


def test_a_damaged_training_state_is_said_and_not_used(tmp_path, capsys):
    import torch

    from ml.training_state import load_state, save_state

    file = tmp_path / ".progress" / "training.pt"
    assert load_state(file) is None
    save_state(file, {"weights": torch.arange(1000.0), "curve": [{"step": 3, "loss": 0.5}]})
    loaded = load_state(file)
    assert torch.equal(loaded["weights"], torch.arange(1000.0)) and loaded["curve"][0]["step"] == 3
    whole = file.read_bytes()
    places = [0, 30, 90, 120, len(whole) // 2, len(whole) - 1]
    for data in [whole[:n] for n in (0, 10, 100, len(whole) // 2, len(whole) - 1)] + [
            whole[:n] + bytes([whole[n] ^ 1]) + whole[n + 1 :] for n in places]:
        files.say.cache_clear()
        file.write_bytes(data)
        assert load_state(file) is None
        assert "starts again from its beginning" in capsys.readouterr().err


@pytest.mark.parametrize("spoil", ["cut off", "flipped"])
def test_a_grounding_training_with_a_damaged_state_starts_again(tmp_path, spoil):
    from ml.grounding.training import train
    from tests.test_grounding_training import ENTITIES, PARAMS, Toy, make_module

    toys = Toy(20, 0), Toy(6, 1)
    file = tmp_path / "training.pt"
    whole = train(make_module("paper"), *toys, ENTITIES, PARAMS, 0).curve
    train(make_module("paper"), *toys, ENTITIES, PARAMS, 0, file, stop_after=4)
    data = bytearray(file.read_bytes())
    data[-4000:] = bytes(4000) if spoil == "flipped" else b""
    file.write_bytes(data)
    assert train(make_module("paper"), *toys, ENTITIES, PARAMS, 0, file).curve == whole


@pytest.mark.parametrize("spoil", ["cut off", "flipped"])
def test_a_segmenters_damaged_state_starts_again(tmp_path, spoil):
    import torch

    from ml.segmenters.training import CHECKPOINT, _resume
    from ml.training_state import save_state

    class Fresh:
        def load_state_dict(self, state):
            raise AssertionError("a damaged state was put back")

    save_state(tmp_path / CHECKPOINT, {"model": torch.ones(9), "curve": [1]})
    data = bytearray((tmp_path / CHECKPOINT).read_bytes())
    data[-60:] = bytes(60) if spoil == "flipped" else b""
    (tmp_path / CHECKPOINT).write_bytes(data)
    assert _resume(tmp_path, Fresh()) == []


def test_stored_pictures_of_a_training_are_verified(tmp_path):
    import pandas as pd

    from ml.segmenters.pictures import is_stored, open_encoded, store_encoded

    file = tmp_path / ".progress" / "pictures.arrow"
    assert not is_stored(file)
    store_encoded(file, [pd.DataFrame({"image": [b"a" * 50], "label": [b"b" * 50]})])
    assert is_stored(file) and len(open_encoded(file)[0]) == 1
    data = bytearray(file.read_bytes())
    data[data.index(b"aaaa")] ^= 1
    file.write_bytes(data)
    assert not is_stored(file)


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
