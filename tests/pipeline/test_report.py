"""The parts of the report: the graph, what changed, figures by class, pictures worth a look."""

import json
import re
import shutil
import xml.etree.ElementTree as xml
from dataclasses import replace

import numpy as np
import pytest

from ml.metrics.calibration import reliability
from ml.pipeline.report import cards, changes, figures, graph, segmented
from ml.pipeline.runner import run_stage
from ml.pipeline.table import STAGE, STAGES
from ml.pipeline.workspace import Workspace
from ml.store.files import write_json
from ml.store.manifest import Manifest
from ml.store.shards import read_frame, read_shards
from ml.words.vocabulary import load_vocabulary
from tests.builders import handmade, reported
from tests.builders.reported import SPITE

INPUTS = {stage.name: stage.inputs for stage in STAGES}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    return reported.make(tmp_path_factory.mktemp("report"))


# --- the graph ------------------------------------------------------------------------------------


def test_arrows_that_others_imply_are_left_out():
    assert graph.needed({"a": [], "b": ["a"], "c": ["a", "b"]}) == {"a": [], "b": ["a"], "c": ["b"]}
    assert graph.needed(INPUTS)["report"] == ["promotion"]


def test_a_stage_stands_below_what_it_reads():
    rows = graph.rows_of(INPUTS)
    assert all(rows[source] < rows[name] for name, own in INPUTS.items() for source in own)
    assert min(rows.values()) == 0


def test_the_graph_names_every_stage_with_its_time_and_no_boxes_overlap():
    seconds = dict.fromkeys(INPUTS, 75.0) | {"masks": 0.0, "prompts": 4000.0, "images": 3.04}
    drawn = xml.fromstring(graph.draw_graph(INPUTS, seconds))
    texts = [element.text for element in drawn.iter() if element.tag == "text"]
    assert texts[::2] == list(INPUTS)
    said = dict(zip(texts[::2], texts[1::2], strict=True))
    assert said["masks"] == "not recorded" and said["images"] == "3.0 s"
    assert said["prompts"] == "1 h 06 min" and said["report"] == "1 min 15 s"
    moves = [re.findall(r"-?\d+", g.get("transform")) for g in drawn if g.tag == "g"]
    boxes = [(int(x), int(y)) for x, y in moves]
    for place, (x, y) in enumerate(boxes):
        assert all(y != b or abs(x - a) >= graph.WIDE for a, b in boxes[:place])
    assert len([p for p in drawn if p.tag == "path"]) == sum(
        map(len, graph.needed(INPUTS).values())
    )


# --- what changed ---------------------------------------------------------------------------------


def manifests(score: float = 80.0, steps: int = 5, salt: int = 0) -> dict[str, Manifest]:
    facts = {"grounding_scores": handmade.grounding_facts(score), "triplets": {"accepted": 7}}
    facts |= {"benchmark_scores": handmade.segmenter_facts()}
    params = {"diffusion": {"steps": steps}, "seed": 0}
    return {
        name: Manifest(name, 1, params, {"salt": str(salt)}, {}, facts.get(name, {}))
        for name in STAGE["report"].inputs
    }


def test_a_run_is_compared_with_the_one_before(tmp_path):
    first = changes.with_before(changes.summarize(manifests(), None), tmp_path)
    assert first["before"] is None
    write_json(tmp_path / changes.FILE, first)
    now = changes.summarize(manifests(82.5, steps=9), 75.0)
    second = changes.with_before(now, tmp_path)
    found = changes.differences(now, second["before"])
    cell = "Protocol I, one object, seen, mIoU %"
    assert (cell, 80.0, 82.5) in found["figures"]
    assert ("judged masks that are right, %", None, 75.0) in found["figures"]
    assert found["settings"] == [("diffusion.steps", "5", "9")]
    assert set(found["stages"]) == set(STAGE["report"].inputs)
    write_json(tmp_path / changes.FILE, second)
    assert changes.with_before(now, tmp_path) == second, "made again of the same folders"


@pytest.mark.parametrize("content", ["{", "[]", '{"now": {}, "before": null}', '{"now": 3}'])
def test_a_damaged_summary_counts_as_none(tmp_path, content):
    (tmp_path / changes.FILE).write_text(content)
    now = changes.summarize(manifests(), None)
    assert changes.with_before(now, tmp_path) == {"now": now, "before": None}


# --- pictures and figures -------------------------------------------------------------------------


def test_the_worst_come_first_with_both_masks(made):
    scores = read_frame(made.folder("grounding_scores") / "scores.parquet")
    found = cards.worst_cards(made, scores)
    ious = [card["iou"] for card in found]
    assert len(found) == cards.WORST and ious == sorted(ious) and ious[0] < 100
    assert all(card["ours"].startswith("data:image/jpeg") for card in found)
    assert all(card["ours"] != card["judge"] for card in found)


def test_the_worst_pictures_come_first_with_the_classes_that_are_there(made):
    voc = load_vocabulary("voc-1")
    found = segmented.worst_pictures(made, voc, False)
    assert [card["miou"] for card in found] == pytest.approx([10 * i for i in range(1, 9)])
    truth = read_shards(made.folder("benchmark"), ["entities"]).entities
    assert [{name for name, _ in card["classes"]} for card in found] == [*map(set, truth[:8])]
    assert segmented.worst_pictures(made, voc, True) == [], "they are of other pictures"


def test_curves_are_the_same_bytes_again_and_in_the_page_s_ink():
    found = {"seen": reliability(np.linspace(0, 1, 50), np.arange(50) > 20)}
    svg = figures.reliability_diagram(found, "sure")
    assert svg == figures.reliability_diagram(found, "sure")
    assert "currentColor" in svg and "#000000" not in svg
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert ids and all(each.startswith("sure-") for each in ids)


# --- the page -------------------------------------------------------------------------------------


def test_what_is_shown_is_what_the_run_says(made, tmp_path):
    reported.write_report(made, tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "Of 12 judged masks 9 are right: 75.0 %" in text
    assert "1 mark is about pictures no longer in the set" in text
    assert "No earlier run of this profile is on record" in text
    assert not re.search(r"https?://(?!www\.w3\.org)|src=\"(?!data:)", text)
    assert text.count("Not recorded by this run") == 2, "counts by reason, which no facts have here"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["now"]["figures"]["judged masks that are right, %"] == 75.0


def test_a_run_of_an_earlier_version_is_shown_with_what_it_lacks(made, tmp_path):
    shutil.copytree(made.root, tmp_path, dirs_exist_ok=True)
    workspace = replace(made, root=tmp_path)
    folder = workspace.folder("grounding_scores")
    for name in ("masks.parquet", "reliability.parquet"):
        (folder / name).unlink()
    reported.write_again(workspace, "grounding_scores", facts=handmade.grounding_facts())
    for file in workspace.data.joinpath(".state").rglob("timing.json"):
        file.unlink()
    reported.write_report(workspace, tmp_path / "page")
    text = (tmp_path / "page" / "report.html").read_text()
    assert text.count("Not recorded by this run") == 4 and "not recorded</text>" in text


def test_the_stage_is_made_again_for_new_marks_alone(made, tmp_path):
    shutil.copytree(made.root, tmp_path, dirs_exist_ok=True)
    workspace, params = replace(made, root=tmp_path), handmade.params_of(made)
    first = run_stage("report", params, tmp_path, force=True)
    assert run_stage("report", params, tmp_path).cached
    reported.judge(workspace, 16)
    again = run_stage("report", params, tmp_path)
    assert not again.cached and again.digest != first.digest
    text = (workspace.folder("report") / "report.html").read_text()
    assert "Of 16 judged masks 12 are right" in text


def test_what_users_typed_is_shown_and_not_obeyed(made, tmp_path):
    shutil.copytree(made.root, tmp_path, dirs_exist_ok=True)
    workspace = replace(made, root=tmp_path)
    reported.spiteful(workspace)
    reported.write_report(workspace, tmp_path / "page")
    for name in ("report", "audit"):
        text = (tmp_path / "page" / f"{name}.html").read_text()
        assert "<img src=x" not in text and "&lt;img src=x onerror=" in text
        assert text.count("</script>") == 1
    rows = read_shards(workspace.folder("triplets"))
    assert SPITE in set(rows.entity)
