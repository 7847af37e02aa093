"""A stage's inputs were made from one another, and one process at a time writes a folder."""

import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from ml.__main__ import main
from ml.errors import ManifestError, WorkspaceBusy
from ml.pipeline.table import STAGE, STAGES
from ml.store.files import sha256_json, write_json
from ml.store.lineage import check_lineage
from ml.store.locks import FolderLock
from ml.store.manifest import Manifest, read_manifest, write_manifest
from ml.store.sidecars import sidecar
from tests.builders.small_stages import recipe, start, until

# --- inputs were made from one another ------------------------------------------------------------


def test_an_input_made_from_what_was_replaced_is_refused_and_named(small):
    run, workspace, _ = small
    for name in ("one", "two", "three"):
        run(name)
    old = read_manifest(workspace.folder("one")).digest
    run("one", 1)
    now = read_manifest(workspace.folder("one")).digest
    with pytest.raises(
        ManifestError,
        match=f"'two' was made from 'one' {old[:12]}, which is "
        f"{now[:12]} now. Run `python -m ml two`",
    ):
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


EDGES = [
    (stage.name, name, source)
    for stage in STAGES
    for name in sorted(upstream(stage.name))
    for source in STAGE[name].inputs
]


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
    profile.write_text(
        f"vocabulary: {words}\nprompts: {{train_one: 4, train_two: 2, sim_per_cell: "
        "1, synthetic_one: 4, synthetic_two: 2}\n"
    )
    call = ["--profile", str(profile), "--root", str(tmp_path)]
    assert main(["prompts", *call]) == 0
    words.write_text("seen: [cat, dog]\nunseen: [bus, car, cow]\n")
    assert main(["images", *call]) == 3
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
    module = sys.modules["ml.pipeline.stages.one"]
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
    module = sys.modules["ml.pipeline.stages.two"]
    sound = module.run

    def slow(params, writing, recipe):
        folder = writing.folder("one")
        made = read_manifest(folder)
        write_manifest(folder, dataclasses.replace(made, facts={"rows": 7}))
        return sound(params, writing, recipe)

    monkeypatch.setattr(module, "run", slow)
    with pytest.raises(ManifestError, match="one changed while 'two' was made from it"):
        run("two")


@pytest.mark.parametrize(
    "stage, words, code",
    [("prompts", "seen: []\n", 2), ("prompts", "seen: [dog, dogs]\n", 2), ("masks", None, 3)],
)
def test_a_refusal_at_first_leaves_nothing_at_all(tmp_path, capsys, stage, words, code):
    profile = tmp_path / "yard.yaml"
    profile.write_text(f"vocabulary: {tmp_path / 'words.yaml' if words else 'voc-1'}\n")
    if words:
        (tmp_path / "words.yaml").write_text(words)
    root = tmp_path / "root"
    assert main([stage, "--profile", str(profile), "--root", str(root)]) == code
    assert capsys.readouterr().err.count("error: ") == 1 and not root.exists()
