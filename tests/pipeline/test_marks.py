"""Marks: kept whatever else writes, read back as they were, and refused when they are not marks."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from ml.pipeline.audited import audited, verdicts_of
from ml.pipeline.marks import Mark, add_marks, heeded, picture_sha256, read_marks
from ml.pipeline.runner import run_stage
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.store.leases import Lease
from ml.store.shards import read_shards
from ml.store.shelf import look
from tests.builders import handmade, object_store
from tests.builders.object_store import BUCKET, environment

MANY = """
import sys
from ml.pipeline.marks import Mark, add_marks
from ml.pipeline.workspace import Workspace

root, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
for i in range(count):
    mark = Mark("triplets", f"{i:064x}", f"{who}-{i}", who, "wrong mask")
    add_marks(Workspace(root, "ci"), [mark])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    return handmade.data_stages(tmp_path_factory.mktemp("marks"))


def mark(number: int = 0, word: str = "dog", verdict: str = "wrong mask", **more) -> Mark:
    given = {"stage": "triplets", "sha256": f"{number:064x}", "key": f"train-{number:06d}"}
    return Mark(**{**given, "word": word, "verdict": verdict, **more})


def marks_file(workspace: Workspace) -> Path:
    return workspace.data / "audit" / "marks.json"


def write_at_once(root: str, count: int, env: dict[str, str] | None = None) -> None:
    """Two processes that add marks at the same time."""
    both = [
        subprocess.Popen(
            [sys.executable, "-c", MANY, root, who, str(count)],
            cwd=ROOT,
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for who in ("one", "two")
    ]
    for process in both:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said[-2000:]


def test_marks_come_back_in_order_and_the_last_verdict_wins(tmp_path):
    workspace = Workspace(tmp_path, "ci")
    assert read_marks(workspace) == []
    first, other, word = mark(1), mark(2, stage="synthetic_dataset"), mark(1, "sofa")
    add_marks(workspace, [first, other])
    add_marks(workspace, [word])
    assert read_marks(workspace) == [first, other, word]
    again = mark(1, verdict="right")
    add_marks(workspace, [again])
    assert read_marks(workspace) == [other, word, again]
    entry = json.loads(marks_file(workspace).read_text())["marks"][-1]
    assert set(entry) == {"stage", "sha256", "key", "word", "verdict", "when"}


def test_two_processes_lose_nothing(tmp_path):
    write_at_once(str(tmp_path), 15)
    found = read_marks(Workspace(tmp_path, "ci"))
    assert {m.key for m in found} == {f"{w}-{i}" for w in ("one", "two") for i in range(15)}


@pytest.mark.slow
def test_two_processes_lose_nothing_on_an_object_store(s3, tmp_path, monkeypatch):
    object_store.use_keys(monkeypatch)
    write_at_once(f"s3://{BUCKET}/{tmp_path.name}", 3, environment(s3))
    workspace = Workspace(object_store.place(s3, tmp_path.name), "ci")
    assert len(read_marks(workspace)) == 6
    shelf = look(workspace.data / "audit")
    assert len(shelf.versions) == 1 and len(shelf.locks) <= 2  # nothing piles up


def test_a_writer_that_comes_back_too_late_undoes_nothing(s3, tmp_path, monkeypatch):
    """It had read the marks, stood still, and others took over its lock and added one."""
    object_store.use_keys(monkeypatch)
    workspace = Workspace(object_store.place(s3, tmp_path.name), "ci")
    first, second = mark(1), mark(2)
    add_marks(workspace, [first])
    with Lease(workspace.data, "audit") as late:
        late.write()
        with monkeypatch.context() as patch:
            patch.setattr(Lease, "_held", lambda *_: (False, {}))  # as if its beat had stood still
            add_marks(workspace, [second])
        shelf = look(workspace.data / "audit")
        assert shelf.current != late.number
        shelf.point(late.number)  # what it would do at the end
        assert read_marks(workspace) == [first, second]


@pytest.mark.parametrize(
    "content, match",
    [
        ("{", "can't be read as JSON"),
        ("[]", "expected an object with marks"),
        ('{"marks": 3}', "marks: unexpected 3"),
        ('{"marks": [3]}', "mark 1: expected an object with stage, sha256"),
        ('{"marks": [{"stage": "triplets"}]}', "mark 1: expected an object with stage, sha256"),
    ],
)
def test_a_file_that_holds_no_marks_is_refused_and_kept(tmp_path, content, match):
    workspace = Workspace(tmp_path, "ci")
    file = marks_file(workspace)
    file.parent.mkdir(parents=True)
    file.write_text(content)
    for use in (lambda: read_marks(workspace), lambda: add_marks(workspace, [mark()])):
        with pytest.raises(ValueError, match=match) as refusal:
            use()
        assert str(file) in str(refusal.value)
    assert file.read_text() == content


@pytest.mark.parametrize(
    "change, match",
    [
        ({"stage": "masks"}, "stage: expected one of"),
        ({"verdict": "fine"}, "verdict: expected one of"),
        ({"sha256": "abc"}, "sha256: expected 64 hex digits"),
        ({"word": ""}, "word: expected a text, got ''"),
        ({"key": 3}, "key: expected a text, got 3"),
        ({"when": "yesterday"}, "when: expected a time with its offset"),
        ({"when": "2026-11-27T17:00:00"}, "when: expected a time with its offset"),
    ],
)
def test_a_mark_is_checked_where_it_is_made(change, match):
    with pytest.raises(ValueError, match=match):
        mark(**change)


def heeded_by(tmp_path: Path, stage: str, marks: list[Mark], **promotion) -> dict[str, str]:
    params = load_params("ci")
    params = replace(params, promotion=replace(params.promotion, **promotion))
    workspace = Workspace(tmp_path / str(len(list(tmp_path.iterdir()))), "ci")
    workspace.data.mkdir(parents=True)
    add_marks(workspace, marks)
    return heeded(stage, params, workspace)


def test_a_recipe_holds_the_marks_that_its_stage_heeds_and_no_others(tmp_path):
    of = partial(heeded_by, tmp_path)
    wrong = [mark(1), mark(2, verdict="wrong object")]
    right, synthetic = mark(3, verdict="right"), mark(1, stage="synthetic_dataset")
    assert of("triplets", wrong) == of("triplets", [right, *wrong[::-1], synthetic]) != {}
    assert of("triplets", wrong) != of("triplets", wrong[:1])
    assert of("triplets", [right, synthetic]) == of("masks", wrong) == of("report", []) == {}
    assert of("report", [right]) != of("report", [right, synthetic])
    assert of("promotion", [synthetic]) == {}
    asked = {"min_audited_precision": 50.0}
    assert of("promotion", [synthetic], **asked) == of("promotion", [synthetic, right], **asked)
    assert of("promotion", [synthetic], **asked) != {} == of("promotion", [right], **asked)


def test_a_mark_is_about_one_picture_and_one_word(made):
    pictures = read_shards(made.folder("images"), ["key", "image"]).set_index("key").image
    rows = read_shards(made.folder("triplets"), ["key", "entity", "word"])
    two = rows[rows.key.duplicated(keep=False)].iloc[:2]
    assert two.key.nunique() == 1
    key, (one, other) = two.key.iloc[0], two.itertuples()
    name = {"sha256": picture_sha256(pictures[key]), "key": key}
    marks = [mark(word=one.word, **name), mark(3, word=other.word, key=key)]
    found = verdicts_of(made, marks, rows)
    assert found[one.Index] == "wrong mask"  # the other mark's picture is not there any more
    assert found.drop(one.Index).eq("").all() and len(found) == len(rows)
    assert verdicts_of(made, [], rows).eq("").all()


def test_the_later_of_a_word_and_its_class_counts(made):
    picture = read_shards(made.folder("images"), ["key", "image"]).iloc[0]
    name = {"sha256": picture_sha256(picture.image), "key": picture.key}
    rows = pd.DataFrame([{"key": picture.key, "entity": "sofa", "word": "couch"}])
    marks = [mark(word="couch", **name), mark(word="sofa", verdict="right", **name)]
    assert verdicts_of(made, marks, rows).tolist() == ["right"]
    assert verdicts_of(made, marks[::-1], rows).tolist() == ["wrong mask"]


def test_triplets_reject_what_was_marked_wrong_and_nothing_else(made, tmp_path):
    shutil.copytree(made.root, tmp_path, dirs_exist_ok=True)
    workspace, params = Workspace(tmp_path, "ci"), handmade.params_of(made)
    stage = partial(run_stage, "triplets", params, tmp_path)
    before = stage(force=True)
    assert "marked_wrong" not in before.facts["rejected"]  # facts of a version without marks
    rows = read_shards(workspace.folder("triplets"))
    good = rows[rows.accepted & (rows.purpose == "train") & ~rows.key.duplicated(keep=False)]
    wrong, right = good.iloc[0], good.iloc[1]
    pictures = read_shards(workspace.folder("images"), ["key", "image"]).set_index("key").image
    by_eye = {
        row.key: mark(
            key=row.key,
            sha256=picture_sha256(pictures[row.key]),
            word=row.word,
            verdict=verdict,
        )
        for row, verdict in ((wrong, "wrong object"), (right, "right"))
    }
    add_marks(workspace, [by_eye[right.key], mark(9, stage="synthetic_dataset")])
    assert stage().cached, "nothing in the set is marked wrong"
    add_marks(workspace, [by_eye[wrong.key]])
    after = stage()
    assert not after.cached and after.facts["rejected"]["marked_wrong"] == 1
    again = read_shards(workspace.folder("triplets")).set_index("key")
    assert again.reason[wrong.key] == "marked_wrong" and again.accepted[right.key]
    assert after.facts["accepted"] == before.facts["accepted"] - 1
    assert stage().cached
    found = audited(workspace, "triplets")  # the one that was rejected counts still
    assert (found.all["judged"], found.all["right"], found.gone) == (2, 1, 0)
    add_marks(workspace, [replace(by_eye[wrong.key], verdict="right")])
    assert stage().digest == before.digest, "taken back"
