"""What `docs/` has of the studies, in a checkout that did not make them: nothing of it is lost."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from ml.studies import __main__ as cli
from ml.studies import trainings
from ml.studies.catalogue import STUDIES
from ml.studies.export import export
from ml.studies.modules import model_folder, module_recipe
from ml.studies.page import OLDER, publish
from ml.studies.published import take_over
from ml.studies.saved import Saved, load, save
from ml.studies.specs import Spec
from ml.studies.study_run import open_run
from tests.studies.test_studies_page import SAVED, TABLE, files, masks_of


def confusions(run, seed, counts):
    path = run.folder / f"raw/zero-shot-bound-seed{seed}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, confusions=counts)


@pytest.fixture
def checkout(tmp_path):
    """docs/ of a full run: every study, tables of two kinds, two segmenters' confusions."""
    run = open_run("full", tmp_path / "first", 1)
    for name in STUDIES:
        save(run, name, SAVED)
    for name in ("default", "default-more"):
        run.table(name, f"recipe of {name}", lambda name=name: masks_of(name, 60))
    other = pd.DataFrame({"word": ["dog", None], "n": [1, 70_000]})
    run.table("presence", "recipe of presence", lambda: other)
    for seed in (1, 2):
        confusions(run, seed, np.full((2, 3, 3), seed, np.int32))
    masks_of("unfinished", 30).to_parquet(run.folder / "raw/unfinished.parquet")
    publish(run)
    second = tmp_path / "second"
    shutil.copytree(run.root / "docs", second / "docs")
    return open_run("full", second, 1)


def docs(run):
    return files(run.root / "docs")


def test_pages_and_export_of_a_checkout_that_made_nothing_change_nothing(checkout):
    before = docs(checkout)
    publish(checkout)
    export(checkout)
    assert docs(checkout) == before and len(before) > len(STUDIES) + 6


def test_one_study_made_here_stands_among_the_published_ones(checkout):
    before = docs(checkout)
    save(checkout, "limits", Saved("Made here", "q", (TABLE,)))
    checkout.table("default", "mine", lambda: masks_of("mine", 6))
    confusions(checkout, 2, np.full((2, 3, 3), 5, np.int32))
    publish(checkout)
    page = (checkout.root / "docs/results.md").read_text()
    assert "Made here" in page and page.count("## ") == len(STUDIES) and OLDER not in page
    export(checkout)
    after = docs(checkout)
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {
        "results.md",
        "results.html",
        "paper/limits.json",
        "paper/recipes.json",
        "paper/raw/masks.parquet",
        "paper/raw/zero_shot_confusions.parquet",
        *(name for name in before if name.startswith("images/paper/limits-")),
    }
    masks = pd.read_parquet(checkout.root / "docs/paper/raw/masks.parquet")
    of = {table: set(own.method) for table, own in masks.groupby("table", observed=True)}
    assert of["default"] == {"mine"} and of["default-more"] == {"default-more"}
    assert of["unfinished"] == {"unfinished"}
    rows = pd.read_parquet(checkout.root / "docs/paper/raw/zero_shot_confusions.parquet")
    assert rows.groupby("seed").pixels.unique().map(list).to_dict() == {1: [1], 2: [5]}
    recipes = json.loads(after["paper/recipes.json"])
    assert recipes["tables"]["default"] == "mine"
    assert recipes["tables"]["presence"] == "recipe of presence"
    assert set(recipes["studies"]) == set(STUDIES)


def test_a_study_of_other_settings_says_so(checkout):
    file = checkout.root / "docs/paper/recipes.json"
    recipes = json.loads(file.read_text())
    recipes["studies"]["limits"] = "of other settings"
    file.write_text(json.dumps(recipes))
    publish(checkout)
    for page in ("results.md", "results.html"):
        assert (checkout.root / "docs" / page).read_text().count(OLDER) == 1


def test_a_picture_that_is_lost_stops_the_page_and_nothing_is_written(checkout):
    (checkout.root / "docs/images/paper/limits-4.jpg").unlink()
    before = docs(checkout)
    with pytest.raises(ValueError, match=r"expected .*limits-4.jpg.*git checkout docs"):
        publish(checkout)
    assert docs(checkout) == before


def test_tables_taken_over_count_by_their_recipe_alone(checkout):
    def never():
        raise AssertionError("made again")

    assert take_over(checkout) == ["presence", "default", "default-more"]
    own = checkout.table("default", "recipe of default", never)
    expected = masks_of("default", 60)
    assert list(own.key) == list(expected.key) and list(own.own) == list(expected.own)
    assert np.array_equal(own.iou, expected.iou.astype(np.float32))
    assert checkout.table("presence", "recipe of presence", never).word[0] == "dog"
    made = checkout.table("default", "another recipe", lambda: masks_of("new", 6))
    assert set(made.method) == {"new"}


def test_no_table_that_the_run_made_is_replaced_and_a_half_one_is(checkout):
    checkout.table("default", "my recipe", lambda: masks_of("mine", 6))
    masks_of("half", 3).to_parquet(checkout.table_path("default-more"))  # killed before it signed
    assert take_over(checkout) == ["presence", "default-more"]
    assert set(pd.read_parquet(checkout.table_path("default")).method) == {"mine"}
    assert set(pd.read_parquet(checkout.table_path("default-more")).method) == {"default-more"}
    assert take_over(checkout) == []


def test_modules_whose_rows_were_taken_over_are_trained_where_they_are_asked(checkout, monkeypatch):
    trained = []

    def train(run, spec, pipe):
        trained.append(spec)
        for seed in range(run.size.seeds):
            model_folder(run, spec, seed).mkdir(parents=True)
            run.sign(model_folder(run, spec, seed), module_recipe(run, spec, seed))

    monkeypatch.setattr(trainings, "trained_modules", train)
    monkeypatch.setattr(trainings, "load_pipeline", lambda diffusion: None)
    monkeypatch.setattr(trainings, "training_pictures", lambda run: [])
    specs = [Spec(), Spec(settles=False), Spec(variant="paper")]
    trainings.have_modules(checkout, specs)
    assert trained == [Spec(), Spec(variant="paper")]  # one module without and with settling
    trainings.have_modules(checkout, specs)
    assert len(trained) == 2


def test_another_precision_than_the_one_asked_for_is_another_module(checkout, monkeypatch):
    from ml.studies import modules

    found = []
    for used in ("bfloat16", "float32"):
        monkeypatch.setattr(modules, "usable_precision", lambda asked, device, used=used: used)
        found.append(module_recipe(checkout, Spec(), 0))
    assert found[0] != found[1]


def test_rows_in_the_precision_asked_for_count_where_it_is_emulated(checkout, monkeypatch):
    from ml.studies import modules

    emulates = {"used": "bfloat16"}
    monkeypatch.setattr(modules, "usable_precision", lambda asked, device: emulates["used"])
    asked = trainings.recipe_of(checkout, Spec())
    checkout.table("default", asked, lambda: masks_of("asked", 6))
    emulates["used"] = "float32"
    assert trainings.done(checkout, Spec())
    assert set(trainings.rows_of(checkout, Spec()).method) == {"asked"}
    assert trainings.precision_of(checkout, Spec()) == "bfloat16"
    # What was trained in the emulating machine's precision is not what another one was asked for.
    checkout.sign(checkout.table_path("default"), trainings.recipe_of(checkout, Spec()))
    assert trainings.done(checkout, Spec())
    assert trainings.precision_of(checkout, Spec()) == "float32"
    emulates["used"] = "bfloat16"
    assert not trainings.done(checkout, Spec())


def test_the_command_takes_tables_over_and_keeps_the_others_on_the_page(
    checkout, monkeypatch, capsys
):
    def save_it(run, name):
        save(run, name, Saved("new", "q", (TABLE,)))
        return None, 0.0

    monkeypatch.setattr(cli, "make_study", save_it)
    line = ["--root", str(checkout.root), "--workers", "1", "--study", "limits", "--published"]
    assert cli.main(line) == 0
    assert "3 published tables taken over" in capsys.readouterr().out
    assert load(checkout, "limits").title == "new"
    page = (checkout.root / "docs/results.md").read_text()
    assert "Not run yet" not in page and page.count("Protocol I, again") > 1


def test_without_anything_published_it_says_so(tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), "--published", "--page-only"]) == 2
    assert "there is nothing to take over" in capsys.readouterr().err
    assert cli.main(["--quick", "--published", "--root", str(tmp_path)]) == 2
    assert "--published is of the full size" in capsys.readouterr().err
