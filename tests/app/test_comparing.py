"""Two runs side by side, of hand-made manifests."""

import pytest

from ml.app.comparing import Change, Score, compare, runs
from ml.pipeline.workspace import Workspace
from ml.store.manifest import Manifest, write_manifest


def run(root, name, stages):
    for stage, (params, inputs, facts) in stages.items():
        folder = Workspace(root, name).folder(stage)
        folder.mkdir(parents=True)
        write_manifest(folder, Manifest(stage, 1, params, inputs, {}, facts))


@pytest.fixture
def root(tmp_path):
    def scores(ours, images):
        return {"seed": 0}, {"images": images}, {"ours": {"one_seen": ours}, "daam": {}}

    def segmented(dog, cat):
        facts = {"synthetic": {"harmonic": 50.0, "per_class": {"dog": dog, "cat": cat}}}
        return {"segmenter": {"steps": int(dog)}}, {"benchmark": "b"}, facts

    run(
        tmp_path,
        "first",
        {"grounding_scores": scores(80.0, "a"), "benchmark_scores": segmented(60.0, 70.0)},
    )
    run(
        tmp_path,
        "second",
        {"grounding_scores": scores(82.5, "a"), "benchmark_scores": segmented(50.0, 71.0)},
    )
    run(tmp_path, "third", {"grounding_scores": scores(90.0, "other")})
    (tmp_path / "data/stray").mkdir()
    (tmp_path / "data/note.txt").touch()
    return tmp_path


def test_runs_are_the_folders_with_a_finished_stage(root, tmp_path):
    assert runs(root) == ["first", "second", "third"]
    assert runs(tmp_path / "nowhere") == []


def test_scores_stand_side_by_side_and_the_largest_difference_of_a_class_first(root):
    found = compare(root, "first", "second")
    cells, segmenters, classes = found.scores.values()
    assert cells == [Score("this module: one object, seen", 80.0, 82.5)]
    assert cells[0].difference == 2.5
    assert segmenters == [Score("trained on synthetic pictures: harmonic", 50.0, 50.0)]
    assert [(row.name, row.difference) for row in classes] == [("dog", -10.0), ("cat", 1.0)]
    assert found.settings == [Change("segmenter.steps", "60", "50")]
    assert [change.name for change in found.facts] == ["grounding_scores", "benchmark_scores"]
    assert found.cautions == []


def test_what_forbids_a_comparison_is_said(root):
    found = compare(root, "first", "third")
    assert found.cautions == [
        "Protocol I was judged on other pictures in the second run: its differences are not the "
        "models' alone.",
        "The second run has no benchmark_scores yet.",
    ]
    assert found.scores["Segmenter by class (IoU, %)"][0].difference is None


def test_a_run_with_itself_differs_in_nothing(root):
    found = compare(root, "first", "first")
    assert found.settings == found.facts == found.cautions == []


def test_a_run_that_is_not_there_is_refused_with_those_that_are(root):
    with pytest.raises(ValueError, match="no finished run 'stray'.*first, second, third"):
        compare(root, "first", "stray")
    with pytest.raises(ValueError, match="no finished run '../first'"):
        compare(root, "../first", "first")
