"""The audit sheet: what is picked, what the page holds, what its ticks say; and the report that
both stand in, with and without a real benchmark."""

import base64
import io
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ml.__main__ import main
from ml.pipeline import audit
from ml.pipeline.audit import choose_items, precision, wilson
from ml.pipeline.audited import audited
from ml.pipeline.marks import read_marks
from ml.pipeline.runner import run_stage
from ml.pipeline.workspace import Workspace
from ml.store.manifest import read_manifest
from ml.store.shards import read_shards
from tests.builders import handmade


@pytest.fixture(scope="module")
def reported(tmp_path_factory) -> Workspace:
    """The whole graph by hand, with the report stage run for real."""
    workspace = handmade.all_stages(tmp_path_factory.mktemp("audit"))
    run_stage("report", handmade.params_of(workspace), workspace.root, force=True)
    return workspace


def page(workspace: Workspace) -> str:
    return (workspace.folder("report") / "audit.html").read_text()


class Sheets(HTMLParser):
    """The fieldsets of the page: key, entity, source of the picture, values of the boxes."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[dict] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "fieldset":
            self.found.append(
                {"key": values["data-key"], "entity": values["data-entity"], "boxes": []}
            )
        elif tag == "img":
            self.found[-1]["src"] = values["src"]
        elif tag == "input":
            assert values["name"] == self.found[-1]["key"]
            self.found[-1]["boxes"].append(values["value"])


# Which pictures


def test_items_are_even_over_classes_and_never_repeat_a_picture():
    rng = np.random.default_rng(0)
    classes = "abcde"
    entities = [
        list(rng.choice(list(classes), rng.integers(1, 3), replace=False)) for _ in range(300)
    ]
    chosen = choose_items(entities, classes, 100, seed=1)
    assert len({i for i, _ in chosen}) == len(chosen) == 100
    assert set(Counter(name for _, name in chosen).values()) == {20}
    assert all(name in entities[i] for i, name in chosen)
    assert choose_items(entities, classes, 100, seed=1) == chosen
    assert choose_items(entities, classes, 100, seed=2) != chosen


def test_a_rare_class_gives_what_it_has_and_the_others_fill_up():
    entities = [["a"]] * 3 + [["b"]] * 50 + [["c"]] * 50
    chosen = choose_items(entities, "abcd", 63, seed=0)
    assert Counter(name for _, name in chosen) == {"a": 3, "b": 30, "c": 30}
    assert choose_items(entities[:3], "abcd", 63, seed=0) and not choose_items([], "ab", 9, 0)


# What the ticks say


@pytest.mark.parametrize(
    "right, judged, low, high",
    [
        # R: binom::binom.wilson and Newcombe 1998, table I ("15 of 148", "81 of 263")
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),
    ],
)
def test_wilson_against_published_values(right, judged, low, high):
    found = wilson(right, judged)
    assert found == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_nothing_judged_says_nothing():
    assert wilson(0, 0) == (0.0, 1.0)


def test_precision_by_class():
    ticks = [{"entity": "dog", "verdict": "right"}] * 3 + [
        {"entity": "dog", "verdict": "wrong mask"},
        {"entity": "sofa", "verdict": "wrong object"},
    ]
    dog, sofa, every = precision(ticks)
    assert (dog["class"], dog["judged"], dog["right"], dog["wrong mask"]) == ("dog", 4, 3, 1)
    assert (dog["precision"], sofa["precision"], every["precision"]) == (75, 0, 60)
    assert every["class"] == "all" and every["judged"] == 5
    low, high = wilson(3, 5)
    assert (every["low"], every["high"]) == (100 * low, 100 * high)


# The page


def test_the_page_holds_pictures_masks_and_boxes(reported):
    text = page(reported)
    sheets = Sheets(text).found
    rows = read_shards(reported.folder("synthetic_dataset"), ["key", "text", "entities"])
    known = rows.set_index("key")
    assert len(sheets) == min(audit.ITEMS, len(rows)) == len({s["key"] for s in sheets})
    for sheet in sheets:
        assert sheet["entity"] in known.entities[sheet["key"]]
        assert sheet["boxes"] == list(audit.VERDICTS)
    data = base64.b64decode(sheets[0]["src"].removeprefix("data:image/jpeg;base64,"))
    shown = np.asarray(Image.open(io.BytesIO(data)))
    assert max(shown.shape[:2]) <= 256
    assert len({sheet["entity"] for sheet in sheets}) == 20
    assert len(text) < 2_000_000


def test_the_page_needs_nothing_from_elsewhere(reported):
    text = page(reported)
    assert not re.search(r"https?://|src=\"(?!data:)|href=\"(?!data:,\")", text)
    assert 'href="audit.html"' in (reported.folder("report") / "report.html").read_text()
    facts = read_manifest(reported.folder("report")).facts
    assert facts["audit_bytes"] == len(text.encode()) and facts["audit_pictures"] == 100


def test_the_mask_is_that_of_the_class_shown(reported):
    """Of a picture with two objects only the one to judge is tinted."""
    from ml.pipeline.audit_sheet import thumbnail

    image = np.full((64, 64, 3), 200, np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    data = thumbnail(image, mask).removeprefix("data:image/jpeg;base64,")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
    assert shown.shape == (224, 224, 3)
    tinted = np.abs(shown - 200).max(-1) > 40
    assert tinted[60:164, 60:164].all() and not tinted[:50].any() and not tinted[:, 174:].any()


# Reading the ticks back


def saved(workspace: Workspace, tmp_path, change=lambda content: content):
    """What the page's button saves: every class's first picture right, the others wrong."""
    ticks, seen = [], set()
    for sheet in Sheets(page(workspace)).found:
        verdict = "wrong mask" if sheet["entity"] in seen else "right"
        seen.add(sheet["entity"])
        ticks.append({"key": sheet["key"], "entity": sheet["entity"], "verdict": verdict})
    digest = read_manifest(workspace.folder("synthetic_dataset")).digest
    content = change({"profile": "ci", "synthetic_dataset": digest, "ticks": ticks})
    path = tmp_path / "audit.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_ticks_become_precision(reported, tmp_path, capsys):
    path = saved(reported, tmp_path)
    done = main(["audit", str(path), "--profile", "ci", "--root", str(reported.root)])
    said = capsys.readouterr()
    assert done == 0, said.err
    assert "dog" in said.out and "precision" in said.out
    written = json.loads((reported.state("synthetic_dataset") / "audit.json").read_text())
    every = written["precision"][-1]
    assert (every["class"], every["judged"], every["right"]) == ("all", 100, 20)
    assert every["precision"] == 20 and every["low"] < 20 < every["high"]
    assert read_manifest(reported.folder("synthetic_dataset"))  # the data is as it was
    kept = audited(reported, "synthetic_dataset")
    assert kept.rows == written["precision"] and kept.gone == 0
    assert main(["audit", str(path), "--profile", "ci", "--root", str(reported.root)]) == 0
    assert len(read_marks(reported)) == 100, "read twice, judged once"


@pytest.mark.parametrize(
    "change, match",
    [
        (lambda c: c | {"synthetic_dataset": "0" * 64}, "is about the synthetic set 000000000000"),
        (lambda c: c | {"ticks": []}, "holds no tick"),
        (lambda c: {"ticks": c["ticks"]}, "is no saved audit sheet (KeyError"),
        (lambda c: "not json", "is no saved audit sheet (JSONDecodeError"),
        (
            lambda c: c | {"ticks": [c["ticks"][0] | {"verdict": "fine"}]},
            "verdict 'fine': expected",
        ),
        (lambda c: c | {"ticks": [c["ticks"][0] | {"entity": "whale"}]}, "class 'whale'"),
        (lambda c: c | {"ticks": c["ticks"][:1] * 2}, "judged twice"),
    ],
)
def test_ticks_that_say_nothing_are_refused(reported, tmp_path, capsys, change, match):
    path = saved(reported, tmp_path, change)
    assert main(["audit", str(path), "--profile", "ci", "--root", str(reported.root)]) == 2
    assert match in capsys.readouterr().err


def test_a_missing_file_says_where_the_sheet_is(reported, tmp_path, capsys):
    arguments = ["audit", str(tmp_path / "x.json"), "--profile", "ci", "--root"]
    assert main([*arguments, str(reported.root)]) == 2
    assert "audit.html in a browser" in capsys.readouterr().err
    assert main([*arguments, str(tmp_path)]) == 2


# The report without a real benchmark


def test_the_report_works_without_a_real_benchmark(reported, tmp_path):
    """With benchmark.source none the stages leave no benchmark pictures and no bound."""
    shutil.copytree(reported.root, tmp_path, dirs_exist_ok=True)
    workspace = Workspace(tmp_path, "ci")
    facts = {key: value for key, value in handmade.segmenter_facts().items() if key == "synthetic"}
    del facts["synthetic"]["harmonic"], facts["synthetic"]["unseen"]  # no unseen class, say
    handmade.write_bare(workspace, "benchmark")
    handmade.write_synthetic(workspace)
    for stage in ("segmenter", "real_bound"):
        handmade.write_model(workspace, stage)
    handmade.write_stage("benchmark_scores", workspace, facts | {"held_out_synthetic": True})
    handmade.write_verdict(workspace)
    run_stage("report", handmade.params_of(workspace), tmp_path, force=True)
    text = (workspace.folder("report") / "report.html").read_text()
    assert "There is no real benchmark" in text and "bound: real pictures" not in text
    assert "mIoU, held-out synthetic" in text and "audit.html" in text
    with_one = (reported.folder("report") / "report.html").read_text()
    assert "There is no real benchmark" not in with_one and "bound: real pictures" in with_one
