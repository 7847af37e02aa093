"""The summary has the form that readers rely on, and says when nothing had to be done."""

import json

import pytest

from ml.pipeline.workspace import Workspace
from ml.store.files import write_json
from orchestration.summary import main, promoted, table
from tests.builders import handmade

CELLS = {"one_seen", "one_unseen", "two_seen", "two_mixed", "two_unseen"}


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    handmade.foundation(tmp_path)
    workspace = Workspace(tmp_path, "ci")
    for stage in ("prompts", "benchmark", "images", "masks", "triplets", "grounding_model"):
        handmade.write_bare(workspace, stage)
    handmade.write_stage("grounding_scores", workspace, handmade.grounding_facts())
    for stage in ("synthetic_dataset", "segmenter", "real_bound"):
        handmade.write_bare(workspace, stage)
    handmade.write_stage("benchmark_scores", workspace, handmade.segmenter_facts())
    return workspace


def summarize(workspace: Workspace) -> dict:
    assert main(["--profile", "ci", "--root", str(workspace.root)]) == 0
    return json.loads((workspace.data / "summary.json").read_text())


def test_form_of_the_summary(workspace, capsys):
    summary = summarize(workspace)
    assert set(summary) == {"grounding", "segmentation", "champion", "wall_seconds", "peak_rss_mb"}
    assert set(summary["grounding"]["ours"]) == set(summary["grounding"]["daam"]) == CELLS
    for kind in ("synthetic", "real_upper_bound"):
        assert set(summary["segmentation"][kind]) == {"seen", "unseen", "harmonic", "background"}
    assert summary["champion"] == {"grounding": None, "segmenter": None}
    seconds = dict(summary["wall_seconds"])
    assert seconds.pop("total") == sum(seconds.values()) == 11.0  # stages made by hand, 1 s each
    assert summary["peak_rss_mb"] == 100.0
    printed = capsys.readouterr().out
    registry = f"`make mlflow ROOT={workspace.root}`"
    for expected in ("Protocol I", "DAAM", "80.0", "58.0", "report.html", "make ui", registry):
        assert expected in printed
    assert "Promoted: no registry yet" in printed


def test_a_registry_without_a_champion_is_none_and_no_registry_is_said():
    assert promoted({}) == "grounding none, segmenter none"
    assert promoted({"segmenter": "models:/x/1"}) == "grounding none, segmenter models:/x/1"
    assert "make run" in promoted(None)


def test_a_second_run_says_that_nothing_was_done(workspace, capsys):
    summarize(workspace)
    assert "nothing had to be done" not in capsys.readouterr().out
    summarize(workspace)
    assert "nothing had to be done" in capsys.readouterr().out
    write_json(workspace.state("images") / "timing.json", {"seconds": 3.0, "peak_rss_mb": 1.0})
    summarize(workspace)
    assert "nothing had to be done" not in capsys.readouterr().out


def test_without_scores_it_says_what_to_run(tmp_path, capsys):
    assert main(["--profile", "ci", "--root", str(tmp_path)]) == 3
    assert "python -m ml grounding_scores" in capsys.readouterr().err


def test_a_missing_score_is_a_dash():
    lines = table("title", ["a", "b"], [("ours", [1.25, None])]).splitlines()
    assert lines[-1].split() == ["ours", "1.2", "-"]
