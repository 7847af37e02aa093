"""Study `few_labels`: which pictures teach and judge, and the figures of rows made by hand."""

import itertools

import pandas as pd
import pytest

from ml.studies import few_labels
from ml.studies.blocks import Plot, Table
from ml.studies.few_labels_lessons import NONE, STARTS, judged_classes, labelled_classes, vocabulary
from ml.studies.study_run import open_run
from ml.words.cells import CELLS, cell_of


@pytest.fixture
def run(tmp_path):
    return open_run("full", tmp_path, 1)


def test_only_unseen_words_are_labelled_and_no_judged_scene_teaches(run):
    words, labelled, judged = vocabulary(), labelled_classes(run), judged_classes(run)
    for place, name in enumerate(words.unseen):
        own = labelled[20 * place : 20 * (place + 1)]
        assert all(scene[0] == name and set(scene) <= set(words.unseen) for scene in own)
        assert [len(scene) for scene in own] == [1, 2] * 10
        assert len({scene[-1] for scene in own}) == len(words.unseen)
    assert len(labelled) == 100 < STARTS["judged"] - STARTS["labelled"]
    assert {cell_of(scene, words.unseen) for scene in judged} == set(CELLS)
    assert {name for scene in judged for name in scene} == set(words.classes)


def rows_by_hand() -> pd.DataFrame:
    """Every cell at IoU 0.5 before; a query adds 0.1 to the unseen ones, the module 0.2 and takes
    0.05 from the seen ones."""
    gains = {NONE: (0.0, 0.0), "query": (0.1, 0.0), "module": (0.2, -0.05)}
    every = [(NONE, 0, 0), *itertools.product(("query", "module"), (1, 5), (0, 1))]
    rows = []
    for (way, pictures, seed), cell in itertools.product(every, CELLS):
        for key in ("a", "b"):
            gain = gains[way]["unseen" not in cell and "mixed" not in cell]
            row = {"method": way, "pictures": pictures, "seed": seed, "cell": cell}
            row |= {"source": "noised", "judge": "truth", "split": "voc-1"}
            rows.append(row | {"key": f"{cell}-{key}", "entity": "dog", "iou": 0.5 + gain})
    return pd.DataFrame(rows)


def test_the_figures_are_those_of_the_rows(run, monkeypatch):
    monkeypatch.setattr(few_labels, "raw", lambda run: rows_by_hand())
    scored, gained, curve, _ = few_labels.blocks(run)
    assert isinstance(scored, Table) and isinstance(gained, Table) and isinstance(curve, Plot)
    assert [row.label for row in scored.rows][:3] == [
        "no labelled picture",
        "1 picture a word: the word's query alone",
        "1 picture a word: the module",
    ]
    best = next(row for row in gained.rows if row.label.startswith("5 pictures a word: the module"))
    assert best.cells["two_unseen"].value == pytest.approx(20)
    assert best.cells["two_seen"].value == pytest.approx(-5)
    assert scored.rows[1].cells["one_unseen"].value == pytest.approx(60)
    assert [point[:2] for point in curve.series["query"]] == [
        (0, pytest.approx(50)),
        (1, pytest.approx(60)),
        (5, pytest.approx(60)),
    ]
