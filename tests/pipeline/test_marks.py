"""Marks: kept whatever else writes, read back as they were, and refused when they are not marks."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from ml.pipeline.marks import (
    Mark,
    add_marks,
    picture_sha256,
    read_marks,
    verdicts_of,
    wrong_digest,
)
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT
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


def test_only_what_is_wrong_of_a_stage_is_in_its_digest():
    wrong = [mark(1), mark(2, verdict="wrong object")]
    digest = wrong_digest(wrong, "triplets")
    assert digest == wrong_digest([*reversed(wrong), mark(3, verdict="right")], "triplets")
    assert digest != wrong_digest(wrong[:1], "triplets")
    assert wrong_digest(wrong, "synthetic_dataset") is None
    assert wrong_digest([mark(verdict="right")], "triplets") is None


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
