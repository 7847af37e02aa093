"""The core: settings, vocabularies, files, manifests, shards, and what `run_stage` promises."""

import dataclasses
import errno
import hashlib
import json
import os
import sys
import types
from contextlib import nullcontext
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import ml.pipeline.runner as stages
from ml.__main__ import main
from ml.errors import ManifestError, QualityError
from ml.pipeline.runner import run_stage
from ml.pipeline.table import STAGES, Output, Stage
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.store.files import atomic, sha256_file, sha256_json, write_json
from ml.store.folder_digest import sha256_folder
from ml.store.making import write_shards
from ml.store.manifest import read_manifest
from ml.store.shards import read_rows, read_shards, split
from ml.store.sidecars import shard_files
from ml.words.vocabulary import load_vocabulary
from tests.builders.small_stages import rows_of

# params


def profile_file(tmp_path: Path, text: str) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    return str(tmp_path / "mine.yaml")


def test_every_profile_of_the_project_loads():
    files = [p for p in (ROOT / "profiles").glob("*.yaml") if not p.name.endswith(".run.yaml")]
    for profile in ["micro", *(p.stem for p in files)]:
        assert load_params(profile).profile == profile


def test_a_profile_overrides_only_what_it_names(tmp_path):
    base = load_params()
    mine = load_params(profile_file(tmp_path, "prompts: {train_one: 7}\nseed: 3\n"))
    assert (mine.profile, mine.seed, mine.prompts.train_one) == ("mine", 3, 7)
    assert mine.prompts.train_two == base.prompts.train_two and mine.diffusion == base.diffusion


@pytest.mark.parametrize(
    "text, match",
    [
        ("prompts: {train_on: 7}", "unknown setting 'prompts.train_on'; did you mean 'train_one'"),
        ("prompts: 7", "prompts: expected a mapping of settings, got 7"),
        (
            "seed: first",
            "mine.yaml, line 1: seed: expected a whole number from 0 to .*, got 'first'",
        ),
        ("seed: true", "seed: expected a whole number .*, got True"),
        ("seed: 1.5", "seed: expected a whole number .*, got 1.5"),
        (
            "diffusion: {guidance_scale: 1}",
            "guidance_scale: expected a number above 1 and up to 100",
        ),
        ("diffusion: {dtype: float64}", "dtype: expected float32, float16 or bfloat16"),
        ("synthetic: {ignore_band: [0.7, 0.3]}", "ignore_band: expected .*low <= high"),
        ("synthetic: {ignore_band: [0.3]}", "ignore_band: expected a list of 2 values"),
        ("grounding: {evidence_timesteps: 3}", "evidence_timesteps: expected a list .*, got 3"),
        ("- a list", "expected a mapping of settings, got list"),
        ("a: [", "not valid YAML"),
    ],
)
def test_bad_settings_are_refused_with_the_field_named(tmp_path, text, match):
    with pytest.raises(ValueError, match=match):
        load_params(profile_file(tmp_path, text))


def test_unknown_profile_and_missing_field(tmp_path):
    with pytest.raises(ValueError, match="unknown profile 'huge': expected 'micro', one of"):
        load_params("huge")
    lines = (ROOT / "params.yaml").read_text().splitlines()
    (tmp_path / "params.yaml").write_text(
        "\n".join(line for line in lines if not line.startswith("seed:"))
    )
    with pytest.raises(ValueError, match=r"missing settings \['seed'\]"):
        load_params(root=tmp_path)


def test_whole_numbers_are_floats_where_a_float_is_meant(tmp_path):
    value = load_params(profile_file(tmp_path, "diffusion: {guidance_scale: 4}"))
    assert type(value.diffusion.guidance_scale) is float


# vocabulary


@pytest.mark.parametrize(
    "name, unseen",
    [
        ("voc-1", "tvmonitor car dog sofa train"),
        ("voc-2", "horse motorbike person pottedplant sheep"),
        ("voc-3", "bus cat chair cow diningtable"),
        ("voc-zs3", "pottedplant sheep sofa train tvmonitor"),
    ],
)
def test_the_papers_splits(name, unseen):
    vocabulary = load_vocabulary(name)
    assert set(vocabulary.unseen) == set(unseen.split()) and len(vocabulary.seen) == 15
    # labels are alphabetical, hence PASCAL VOC's own: aeroplane is 1, tvmonitor 20
    assert vocabulary.label("aeroplane") == 1 and vocabulary.label("person") == 15
    assert vocabulary.label("tvmonitor") == 20
    assert vocabulary.words["sofa"] == ("sofa", "couch")


def test_a_users_vocabulary_and_its_digest(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("seen: [sofa, gnu]\nunseen: [car]\nwords: {sofa: [settee]}\n")
    mine = load_vocabulary(str(file))
    assert mine.words == {"sofa": ("settee",), "gnu": ("gnu",), "car": ("car",)}
    assert mine.classes == ("car", "gnu", "sofa") and mine.name == "mine"
    file.write_text("seen: [sofa, gnu]\nunseen: [car]\nwords: {sofa: [couch]}\n")
    assert load_vocabulary(str(file)).digest != mine.digest
    with pytest.raises(ValueError, match="'bus' is not in vocabulary 'mine'"):
        mine.label("bus")


@pytest.mark.parametrize(
    "text, match",
    [
        ("seen: [cat, dog, cat]", r"listed more than once: \['cat'\]"),
        ("seen: [cat]\nunseen: [cat]", r"listed more than once: \['cat'\]"),
        ("seen: []\nunseen: [cat]", "no seen class"),
        ("unseen: [cat]", "expected lists `seen:` and `unseen:`"),
        ("seen: [cat]\nunseen: dog", "unseen: expected a list of words, got 'dog'"),
        ("seen: [cat, no]", "seen: expected a list of words"),  # YAML reads no as False
        ("seen: [cat]\nwords: {cat: kitten}", "words of 'cat': expected a list of words"),
        ("seen: [cat]\nwords: {dog: [hound]}", r"not listed: \['dog'\]"),
        ("seen: [" + ", ".join(f"c{i}" for i in range(255)) + "]", "255 classes, expected 254"),
    ],
)
def test_bad_vocabularies_are_refused(tmp_path, text, match):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=match):
        load_vocabulary(str(tmp_path / "mine.yaml"))
    with pytest.raises(ValueError, match="unknown vocabulary 'voc-9'"):
        load_vocabulary("voc-9")


# files


def test_atomic_leaves_the_old_file_after_an_error(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic(path) as temporary:
        temporary.write_text("one")
    with pytest.raises(KeyError), atomic(path) as temporary:
        temporary.write_text("half of tw")
        raise KeyError
    assert path.read_text() == "one" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_atomic_replaces_a_folder_whole(tmp_path):
    for text in ("old", "new"):
        with atomic(tmp_path / "folder", also="*.jpg") as temporary:
            temporary.mkdir()
            (temporary / "a").write_text(text)
            (temporary / f"{text}.jpg").write_text(text)
    assert sorted(p.name for p in (tmp_path / "folder").iterdir()) == ["a", "new.jpg"]
    assert (tmp_path / "folder" / "a").read_text() == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("there", ["file", "folder", "link", "nothing", "empty folder"])
@pytest.mark.parametrize("made", ["file", "folder"])
def test_atomic_takes_a_name_that_nothing_has(tmp_path, made, there, links, monkeypatch):
    """However late the other came; also on file systems without hard links."""
    if not links:

        def refuse(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    path, free = (
        tmp_path / "name",
        there == "nothing" or (there, made) == ("empty folder", "folder"),
    )
    with (
        nullcontext() if free else pytest.raises(ValueError, match="taken by now"),
        atomic(path, taken="taken by now") as temporary,
    ):
        if made == "file":
            temporary.write_text("ours")
        else:
            temporary.mkdir()
            (temporary / "a").write_text("ours")
        if there == "file":
            path.write_text("theirs")
        elif there == "link":
            path.symlink_to("nowhere")
        elif there != "nothing":
            path.mkdir()
            if there == "folder":
                (path / "a").write_text("theirs")
    assert [p.name for p in tmp_path.iterdir()] == ["name"]
    assert path.is_symlink() == (there == "link")
    if there not in ("link", "empty folder") or free:
        file = path / "a" if path.is_dir() else path
        assert file.read_text() == ("ours" if free else "theirs")


def test_digests(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
    value = {9: "nine", 10: "ten"}  # as text, "10" sorts before "9"
    assert sha256_json(value) == sha256_json(json.loads(json.dumps(value)))
    before = sha256_folder(tmp_path)
    (tmp_path / ".hidden").write_text("x")
    assert sha256_folder(tmp_path) == before
    (tmp_path / "a").rename(tmp_path / "b")
    assert sha256_folder(tmp_path) != before
    with pytest.raises(ValueError, match="expected a model folder"):
        sha256_folder(tmp_path / "nothing")


# shards

SCHEMA = pa.schema([("key", pa.string()), ("value", pa.int64())])


def test_shards_resume_with_the_same_bytes(tmp_path):
    """Killed in the third shard: the first two are not made again, and nothing differs."""
    plan, made = split(range(10), 3), []

    def make(group, die_at=None):
        made.append(list(group))
        if die_at in group:
            raise KeyboardInterrupt
        return rows_of(group)

    write_shards(tmp_path / "whole", "r", plan, rows_of, SCHEMA)
    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path / "cut", "r", plan, lambda g: make(g, 7), SCHEMA)
    assert len(shard_files(tmp_path / "cut")) == 2
    made.clear()
    rows = write_shards(tmp_path / "cut", "r", plan, make, SCHEMA)
    assert made == [[6, 7, 8], [9]] and list(rows.values()) == [3, 3, 3, 1]
    for a, b in zip(shard_files(tmp_path / "whole"), shard_files(tmp_path / "cut"), strict=True):
        assert a.read_bytes() == b.read_bytes()
    assert list(read_shards(tmp_path / "cut").value) == list(range(10))


@pytest.mark.parametrize("spoil", ["damage", "lose sidecar", "other recipe"])
def test_a_shard_that_does_not_match_its_sidecar_is_made_again(tmp_path, spoil):
    plan, made = split(range(4), 2), []
    write_shards(tmp_path, "r", plan, rows_of, SCHEMA)
    if spoil == "damage":
        (tmp_path / "shard-00001.parquet").write_bytes(b"half a shard")
    if spoil == "lose sidecar":
        (tmp_path / ".shard-00001.json").unlink()
    write_shards(
        tmp_path,
        "s" if spoil == "other recipe" else "r",
        plan,
        lambda g: (made.append(list(g)), rows_of(g))[1],
        SCHEMA,
    )
    assert made == ([[0, 1], [2, 3]] if spoil == "other recipe" else [[2, 3]])
    assert list(read_shards(tmp_path).value) == [0, 1, 2, 3]


def test_shards_refuse_other_columns(tmp_path):
    with pytest.raises(ValueError, match=r"columns missing \['value'\], not in the schema \['x'\]"):
        write_shards(tmp_path, "r", [[1]], lambda g: pd.DataFrame({"key": ["a"], "x": [1]}), SCHEMA)
    assert not shard_files(tmp_path)
    with pytest.raises(ValueError, match="no shards in"):
        read_shards(tmp_path / "empty")
    assert split([], 3) == []


def test_rows_of_some_keys_come_out_of_all_shards_in_their_order(tmp_path):
    write_shards(tmp_path, "r", split(range(10), 3), rows_of, SCHEMA)
    keys = list(read_shards(tmp_path).key)
    found = read_rows(tmp_path, ["value", "key"], [keys[7], keys[1], "gone", keys[1]])
    assert found.to_dict("list") == {"value": [1, 7], "key": [keys[1], keys[7]]}
    assert list(found.index) == [0, 1]
    for folder, none in ((tmp_path, []), (tmp_path, ["gone"]), (tmp_path / "empty", keys)):
        assert list(read_rows(folder, ["value"], none).columns) == ["value"]
        assert read_rows(folder, ["value"], none).empty


# run_stage, on two small stages


@pytest.fixture
def two_stages(monkeypatch):
    """`one` writes a shard and `two` sums it up; returns the list of runs so far."""
    runs = []

    def run_one(params, workspace, recipe):
        runs.append("one")
        rows = write_shards(
            workspace.folder("one"), recipe, split(range(params.seed + 4), 2), rows_of, SCHEMA
        )
        return Output({"rows": params.seed + 4}, rows)

    def run_two(params, workspace, recipe):
        runs.append("two")
        return Output({"total": int(read_shards(workspace.folder("one")).value.sum())})

    table = {"one": Stage("one", (), ("seed",), 1), "two": Stage("two", ("one",), (), 1)}
    for name, run in (("one", run_one), ("two", run_two)):
        module = types.ModuleType(f"ml.pipeline.stages.{name}")
        module.run = run
        monkeypatch.setitem(sys.modules, f"ml.pipeline.stages.{name}", module)
    monkeypatch.setattr(stages, "STAGE", table)
    return runs


def test_a_second_run_does_nothing_and_says_so(tmp_path, two_stages):
    params = load_params()
    first = [run_stage(name, params, tmp_path) for name in ("one", "two")]
    second = [run_stage(name, params, tmp_path) for name in ("one", "two")]
    assert two_stages == ["one", "two"]
    assert [r.cached for r in first + second] == [False, False, True, True]
    assert [r.digest for r in first] == [r.digest for r in second]
    assert second[1].facts == {"total": 6} and second[0].seconds == first[0].seconds
    folder = tmp_path / "data" / "micro" / "one"
    assert json.loads((folder / "metrics.json").read_text()) == {"rows": 4}
    manifest = read_manifest(folder)
    assert manifest.files["shard-00000.parquet"]["rows"] == 2
    assert manifest.params == {"seed": 0} and manifest.digest == first[0].digest


def test_digests_do_not_depend_on_the_place(tmp_path, two_stages):
    params = load_params()
    here, there = (run_stage("one", params, tmp_path / place) for place in "ab")
    assert here.digest == there.digest


def test_another_setting_makes_it_and_what_follows_again(tmp_path, two_stages):
    params = load_params()
    for name in ("one", "two"):
        run_stage(name, params, tmp_path)
    changed = dataclasses.replace(params, seed=2)
    assert run_stage("one", changed, tmp_path).facts == {"rows": 6}
    assert run_stage("two", changed, tmp_path).facts == {"total": 15}
    unrelated = dataclasses.replace(changed, vocabulary="voc-2")  # neither reads it
    assert run_stage("one", unrelated, tmp_path).cached
    assert run_stage("one", params, tmp_path).facts == {"rows": 4}
    assert len(shard_files(tmp_path / "data" / "micro" / "one")) == 2  # the third one is gone
    assert two_stages == ["one", "two", "one", "two", "one"]


def test_force_makes_the_same_again(tmp_path, two_stages):
    first = run_stage("one", load_params(), tmp_path)
    again = run_stage("one", load_params(), tmp_path, force=True)
    assert not again.cached and again.digest == first.digest


def spoil_file(folder: Path) -> None:
    path = folder / "shard-00001.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def spoil_manifest(folder: Path) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", content | {"facts": {"rows": 99}})


DAMAGE = {
    "a changed shard": (spoil_file, "shard-00001.parquet is not what its manifest says"),
    "a lost shard": (lambda f: (f / "shard-00000.parquet").unlink(), "00000.parquet is missing"),
    "an edited manifest": (spoil_manifest, "fails its own digest"),
    "half a manifest": (lambda f: (f / "manifest.json").write_text('{"sch'), "not a JSON object"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "has not finished"),
    "an older schema": (lambda f: write_json(f / "manifest.json", {"schema": 0}), "schema 0"),
    "other fields": (lambda f: write_json(f / "manifest.json", {"schema": 1, "x": 2}), "expected"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_input_is_refused_and_a_damaged_output_made_again(tmp_path, two_stages, kind):
    spoil, match = DAMAGE[kind]
    params, folder = load_params(), tmp_path / "data" / "micro" / "one"
    sound = run_stage("one", params, tmp_path)
    spoil(folder)
    with pytest.raises(ManifestError, match=match):
        run_stage("two", params, tmp_path)
    mended = run_stage("one", params, tmp_path)
    assert not mended.cached and mended.digest == sound.digest
    assert run_stage("two", params, tmp_path).facts == {"total": 6}


def test_a_stage_cut_short_goes_on(tmp_path, two_stages, monkeypatch):
    """The shard that was in place keeps its time stamp; the folder ends as if never cut."""
    params, folder = load_params(), tmp_path / "data" / "micro" / "one"
    sound = run_stage("one", params, tmp_path / "whole")
    with monkeypatch.context() as patch:

        def dies(params, workspace, recipe):
            write_shards(workspace.folder("one"), recipe, [range(2)], rows_of, SCHEMA)
            raise KeyboardInterrupt

        patch.setattr(sys.modules["ml.pipeline.stages.one"], "run", dies)
        with pytest.raises(KeyboardInterrupt):
            run_stage("one", params, tmp_path)
    half = tmp_path / "data" / "micro" / ".making" / "one"
    stamp = (half / "shard-00000.parquet").stat().st_mtime_ns
    assert run_stage("one", params, tmp_path).digest == sound.digest and not half.exists()
    assert (folder / "shard-00000.parquet").stat().st_mtime_ns == stamp


def test_an_input_whose_checks_failed_is_refused_until_it_changes(tmp_path, two_stages):
    params, workspace = load_params(), Workspace(tmp_path, "micro")
    verdict = {
        "digest": run_stage("one", params, tmp_path).digest,
        "passed": False,
        "failures": ["values are stale"],
    }
    write_json(workspace.state("one") / "quality.json", verdict)
    with pytest.raises(QualityError, match="refuses its input 'one'.*values are stale"):
        run_stage("two", params, tmp_path)
    assert two_stages == ["one"]
    write_json(workspace.state("one") / "quality.json", verdict | {"passed": True})
    assert run_stage("two", params, tmp_path).facts == {"total": 6}
    write_json(workspace.state("one") / "quality.json", verdict | {"digest": "of older data"})
    assert run_stage("two", params, tmp_path).cached


def test_a_pulled_folder_counts_as_made(tmp_path, two_stages):
    """DVC brings the data without the notes beside it: no reason to make it again."""
    import shutil

    params = load_params()
    run_stage("one", params, tmp_path / "a")
    shutil.copytree(tmp_path / "a/data/micro/one", tmp_path / "b/data/micro/one")
    assert run_stage("one", params, tmp_path / "b").cached and two_stages == ["one"]


def test_a_failing_stage_leaves_no_manifest(tmp_path, two_stages, monkeypatch):
    def fails(params, workspace, recipe):
        raise ValueError("no")

    monkeypatch.setattr(sys.modules["ml.pipeline.stages.one"], "run", fails)
    with pytest.raises(ValueError, match="no"):
        run_stage("one", load_params(), tmp_path)
    with pytest.raises(ManifestError, match="has not finished; run `python -m ml one` first"):
        run_stage("two", load_params(), tmp_path)


# the stage table and the command


def test_stages_read_only_earlier_ones_and_real_settings():
    names, fields = [s.name for s in STAGES], {f.name for f in dataclasses.fields(load_params())}
    assert len(set(names)) == len(names)
    for i, stage in enumerate(STAGES):
        assert set(stage.inputs) <= set(names[:i]), stage.name
        assert {section.split(".")[0] for section in stage.sections} <= fields, stage.name
        assert all(load_params().section(section) is not None for section in stage.sections)
        for place in stage.models:
            section, name = place.split(".")
            assert section in stage.sections and hasattr(getattr(load_params(), section), name)


def test_unknown_stage_and_command_errors(tmp_path, capsys):
    with pytest.raises(ValueError, match="unknown stage 'paint'; expected one of"):
        run_stage("paint", load_params(), tmp_path)
    assert main(["triplets", "--root", str(tmp_path)]) == 3
    assert "run `python -m ml images` first" in capsys.readouterr().err
    assert main(["prompts", "--root", str(tmp_path)]) == 0
    assert "prompts: done in" in capsys.readouterr().out
    assert main(["prompts", "--root", str(tmp_path)]) == 0
    assert "prompts: up to date" in capsys.readouterr().out
