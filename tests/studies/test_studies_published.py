"""Published studies taken over into another checkout: everything comes back, by its recipe."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ml.studies import __main__ as cli
from ml.studies.catalogue import STUDIES
from ml.studies.export import export
from ml.studies.page import publish
from ml.studies.published import missing, take_over
from ml.studies.saved import Saved, load, save
from ml.studies.study_run import open_run
from tests.studies.test_studies_page import SAVED, TABLE, files, masks_of


@pytest.fixture
def checkout(tmp_path):
    """docs/ of a full run: every study, three tables of two kinds, a segmenter's confusions."""
    run = open_run("full", tmp_path / "first", 1)
    for name in STUDIES:
        save(run, name, SAVED)
    for name in ("default", "variant-paper"):
        run.table(name, f"recipe of {name}", lambda name=name: masks_of(name, 60))
    other = pd.DataFrame({"word": ["dog", None], "n": [1, 70_000]})
    run.table("presence", "recipe of presence", lambda: other)
    counts = np.random.default_rng(0).integers(0, 3, (5, 21, 21)).astype(np.int32)
    np.savez_compressed(run.folder / "raw/zero-shot-bound-seed2.npz", confusions=counts)
    masks_of("unfinished", 30).to_parquet(run.folder / "raw/unfinished.parquet")
    publish(run)
    second = tmp_path / "second"
    shutil.copytree(run.root / "docs", second / "docs")
    return open_run("full", second, 1)


def test_pages_and_export_are_the_same_again_from_what_was_taken_over(checkout):
    before = files(checkout.root)
    assert missing(checkout) == list(STUDIES)
    assert take_over(checkout) == list(STUDIES) and missing(checkout) == []
    assert repr(load(checkout, "limits")) == repr(SAVED)
    publish(checkout)
    export(checkout)
    assert {name: data for name, data in files(checkout.root).items() if name in before} == before


def test_what_was_taken_over_is_in_place_by_its_recipe_alone(checkout):
    take_over(checkout)

    def never():
        raise AssertionError("made again")

    own = checkout.table("default", "recipe of default", never)
    expected = masks_of("default", 60)
    assert list(own.key) == list(expected.key) and list(own.own) == list(expected.own)
    assert np.array_equal(own.iou, expected.iou.astype(np.float32))
    assert checkout.table("presence", "recipe of presence", never).word[0] == "dog"
    for name in ("unfinished", "default"):  # no recipe was published, or another one
        made = checkout.table(name, "another recipe", lambda: masks_of("new", 6))
        assert set(made.method) == {"new"}


def test_nothing_that_the_run_has_is_replaced(checkout):
    mine = replace(SAVED, title="mine")
    save(checkout, "limits", mine)
    checkout.table("default", "my recipe", lambda: masks_of("mine", 6))
    assert "limits" not in take_over(checkout)
    assert load(checkout, "limits").title == "mine"
    assert set(pd.read_parquet(checkout.table_path("default")).method) == {"mine"}
    assert take_over(checkout) == []


def test_a_study_of_other_settings_is_not_finished(checkout):
    file = checkout.root / "docs/paper/recipes.json"
    recipes = json.loads(file.read_text())
    recipes["studies"]["limits"] = "of other settings"
    file.write_text(json.dumps(recipes))
    take_over(checkout)
    assert load(checkout, "limits") is None and load(checkout, "ablations") is not None


def test_the_command_says_what_the_page_would_lose(checkout, monkeypatch, capsys):
    def save_it(run, name):
        save(run, name, Saved("new", "q", (TABLE,)))
        return None, 0.0

    monkeypatch.setattr(cli, "make_study", save_it)
    line = ["--root", str(checkout.root), "--workers", "1", "--study", "limits"]
    assert cli.main([*line, "--published"]) == 0
    said = capsys.readouterr()
    assert "taken over: protocol_one," in said.out and "not run yet" not in said.err
    page = (checkout.root / "docs/results.md").read_text()
    assert "Not run yet" not in page and page.count("Protocol I, again") > 1 and "new" in page

    shutil.rmtree(checkout.folder)
    assert cli.main(line) == 0
    said = capsys.readouterr().err
    assert "will say of protocol_one," in said and "limits" not in said.split("that they")[0]
    assert "--published takes them over" in said


def test_without_anything_published_it_says_so(tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), "--published", "--page-only"]) == 2
    assert "there is nothing to take over" in capsys.readouterr().err
    assert cli.main(["--quick", "--published", "--root", str(tmp_path)]) == 2
    assert "--published is of the full size" in capsys.readouterr().err
