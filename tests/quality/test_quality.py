"""Checks: sound data passes every rule, each poison breaks the rule meant for it, and a failed
verdict stops the next expensive stage in the same run and in any later one."""

import dataclasses
import json
import shutil
from html.parser import HTMLParser

import dagster as dg
import numpy as np
import pytest

from ml.errors import QualityError
from ml.images.facts import picture_facts
from ml.images.png import encode_png
from ml.pipeline.recipe import refuse_failed_inputs
from ml.pipeline.runner import run_stage
from ml.pipeline.table import STAGE
from ml.pipeline.workspace import Workspace
from ml.quality import verdicts
from ml.quality.rules import DOCS, RULES, SETTINGS, bounds, explained
from ml.quality.tables import TABLES
from ml.settings.profile import ROOT
from ml.store.files import write_json
from ml.store.manifest import read_manifest
from ml.store.schemas import SYNTHETIC
from ml.store.shards import read_shards
from orchestration import expectations
from orchestration.assets import ASSETS
from orchestration.checks import judge as judge_asset
from orchestration.definitions import defs
from orchestration.resources import PROFILES, Project
from tests.builders import handmade


def judge(stage: str, workspace: Workspace) -> set[str]:
    """Names of the rules that fail."""
    verdict = expectations.validate(stage, handmade.params_of(workspace), workspace)
    assert verdict.passed == (not verdict.failures)
    return {result.name for result in verdict.results if not result.passed}


@pytest.mark.parametrize("stage", list(RULES))
def test_sound_data_passes(stage, sound):
    assert judge(stage, sound) == set()


# Poisons, each a function on a stage's rows.


def shuffle_entities(rows):
    """Every prompt keeps its text and gets another one's entities."""
    rolled = rows.copy()
    for column in ("entities", "words"):
        rolled[column] = np.roll(rows[column].to_numpy(), 7)
    return rolled


def shuffle_mask_entities(rows):
    return rows.assign(entity=np.roll(rows["entity"].to_numpy(), 7))


def without_cat(rows):
    return rows[["cat" not in set(names) for names in rows["entities"]]]


def cat_not_found(rows):
    lost = rows["entity"] == "cat"
    return rows.assign(
        found=rows["found"] & ~lost,
        rle=rows["rle"].mask(lost, ""),
        score=rows["score"].mask(lost, 0.0),
        area=rows["area"].mask(lost, 0.0),
    )


def cat_rejected(rows):
    lost = rows["entity"] == "cat"
    return rows.assign(accepted=~lost, reason=np.where(lost, "low_score", ""))


def blank(rows):
    image = np.full((64, 64, 3), 120, np.uint8)
    return rows.assign(image=encode_png(image), **picture_facts(image))


def leaked(benchmark):
    """One synthetic picture in ten is a benchmark picture, and nobody flagged it."""

    def change(rows):
        rows = rows.copy()
        for place in range(0, len(rows), 10):
            rows.at[place, "image"] = benchmark[place]
        return rows

    return change


def overexposed_labels(rows):
    """Label maps of other pictures."""
    return rows.assign(label=np.roll(rows["label"].to_numpy(), 3))


def unseen_labelled(rows):
    return rows.assign(role="labeller")


POISONS = [
    ("prompts", handmade.poison_prompts, shuffle_entities, "entities_named_in_text"),
    ("prompts", handmade.poison_prompts, without_cat, "synthetic_balanced"),
    ("prompts", handmade.poison_prompts, lambda r: r.assign(seed=7), "seeds_unique"),
    ("images", handmade.write_images, blank, "not_blank"),
    ("images", handmade.write_images, blank, "no_exact_duplicates"),
    ("images", handmade.write_images, shuffle_entities, "entities_named_in_text"),
    ("images", handmade.write_images, without_cat, "all_made"),
    ("masks", handmade.write_masks, shuffle_mask_entities, "none_unasked"),
    ("masks", handmade.write_masks, cat_not_found, "every_class_found"),
    ("masks", handmade.write_masks, unseen_labelled, "labels_seen_only"),
    ("masks", handmade.write_masks, lambda r: r.assign(score=0.01), "scores_in_range"),
    ("triplets", handmade.write_triplets, cat_rejected, "enough_per_class"),
    ("triplets", handmade.write_triplets, lambda r: r.assign(reason="?"), "reasons_known"),
    ("synthetic_dataset", handmade.write_synthetic, without_cat, "every_class_present"),
    ("synthetic_dataset", handmade.write_synthetic, overexposed_labels, "labels_named"),
    ("synthetic_dataset", handmade.write_synthetic, blank, "not_blank"),
]


@pytest.mark.parametrize(
    ("stage", "write", "change", "rule"), POISONS, ids=[f"{p[0]}-{p[3]}" for p in POISONS]
)
def test_poison_breaks_its_rule(stage, write, change, rule, workspace):
    write(workspace, change)
    assert rule in judge(stage, workspace)


def test_benchmark_leak_is_found_without_its_flag(workspace):
    real = list(read_shards(workspace.folder("benchmark"), ["image"])["image"])
    handmade.write_synthetic(workspace, leaked(real))
    assert judge("synthetic_dataset", workspace) == {"no_overlap_found"}


def test_scores_at_chance_fail(workspace):
    handmade.write_stage("benchmark_scores", workspace, handmade.segmenter_facts(0.5))
    assert "above_chance" in judge("benchmark_scores", workspace)
    handmade.write_stage("grounding_scores", workspace, handmade.grounding_facts(10.0))
    assert judge("grounding_scores", workspace) == {"above_chance"}


def test_training_that_diverged_fails(workspace):
    path = workspace.folder("grounding_model") / "curve.csv"
    path.write_text("step,loss\n" + "".join(f"{i},{i + 1}\n" for i in range(20)))
    handmade.write_stage("grounding_model", workspace, {"steps": 20})
    assert judge("grounding_model", workspace) == {"loss_fell"}


@pytest.mark.parametrize("loss", ["nan", "", "inf"])
def test_a_loss_that_is_no_number_fails(loss, workspace):
    path = workspace.folder("grounding_model") / "curve.csv"
    rows = [f"{i},{loss if i > 5 else 1 - i / 20}\n" for i in range(20)]
    path.write_text("step,loss\n" + "".join(rows))
    handmade.write_stage("grounding_model", workspace, {"steps": 20})
    assert "loss_finite" in judge("grounding_model", workspace)


def test_what_was_made_of_failed_data_is_refused_too(workspace):
    """Without Dagster nothing is judged as it is made: the verdict may come when all is there."""
    digest = read_manifest(workspace.folder("masks")).digest
    failed = {"digest": digest, "passed": False, "failures": ["areas are wrong"]}
    write_json(workspace.state("masks") / "quality.json", failed)
    for name in ("triplets", "grounding_model", "promotion"):
        with pytest.raises(QualityError, match=f"{name!r} refuses its input 'masks'.*areas"):
            refuse_failed_inputs(STAGE[name], workspace)
    refuse_failed_inputs(STAGE["masks"], workspace)
    expectations.ensure_quality("grounding_model", handmade.params_of(workspace), workspace)
    refuse_failed_inputs(STAGE["promotion"], workspace)  # no rule of now fails: it was judged anew
    write_json(workspace.state("masks") / "quality.json", failed | {"digest": "of older data"})
    refuse_failed_inputs(STAGE["promotion"], workspace)


def test_an_empty_table_fails(workspace):
    """GX passes an empty column; data that is not there must not."""
    handmade.write_triplets(workspace, lambda rows: rows.assign(accepted=False, reason="no_mask"))
    assert {"accepted_have_masks", "yield_share"} <= judge("triplets", workspace)


def test_results_say_what_was_seen_and_demanded(workspace):
    handmade.write_images(workspace, blank)
    verdict = expectations.validate("images", handmade.params_of(workspace), workspace)
    result = next(r for r in verdict.results if r.name == "not_blank")
    assert result.unexpected_percent == 100.0
    assert result.bound == "grey levels vary (4 to 128, of 98%)"
    assert result.examples[0] == "key train-000000, std 0.0"
    assert "key train-000000, std 0.0" in verdict.page.read_text()


def test_a_verdict_is_kept_until_data_or_rules_change(workspace, monkeypatch):
    assert judge("masks", workspace) == set()
    calls = []
    monkeypatch.setattr(expectations, "judge", lambda stage, *rest: calls.append(stage) or [])
    expectations.validate("masks", handmade.params_of(workspace), workspace)
    assert calls == []
    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "SUITE_VERSION", -1)
        expectations.validate("masks", handmade.params_of(workspace), workspace)
    with monkeypatch.context() as patch:
        patch.setitem(RULES, "masks", RULES["masks"][1:])
        expectations.validate("masks", handmade.params_of(workspace), workspace)
    assert calls == ["masks"] * 2
    handmade.write_masks(workspace, lambda rows: rows.assign(score=0.9))
    expectations.validate("masks", handmade.params_of(workspace), workspace)
    assert calls == ["masks"] * 3


def test_changed_bounds_are_judged_anew(workspace):
    """A setting that is a bound of a check need not be one of the stage that is judged."""
    params = handmade.params_of(workspace)
    assert expectations.validate("images", params, workspace).passed
    strict = dataclasses.replace(params, triplets=dataclasses.replace(params.triplets, min_std=100))
    verdict = expectations.validate("images", strict, workspace)
    assert {r.name for r in verdict.results if not r.passed} == {"not_blank"}
    assert expectations.validate("images", params, workspace).passed


def test_a_verdict_knows_every_setting_that_its_tables_read(workspace):
    """SETTINGS are the verdict's key; a table that read another one would keep a stale verdict."""
    read = set()

    class Seen:
        def __init__(self, inner, path=""):
            self.inner, self.path = inner, path

        def __getattr__(self, name):
            value, path = getattr(self.inner, name), f"{self.path}{name}"
            if dataclasses.is_dataclass(value):
                return Seen(value, f"{path}.")
            read.add(path)
            return value

    for stage in RULES:
        TABLES[stage](Seen(handmade.params_of(workspace)), workspace)
        bounds(stage, Seen(handmade.params_of(workspace)))
    assert {"prompts.train_one", "triplets.min_std", "vocabulary"} <= read
    assert {path for path in read if not {path, path.split(".")[0]} & set(SETTINGS)} == set()


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"key": 1', '{"key": "x"}'])
def test_a_damaged_verdict_is_none(content, workspace):
    judge("prompts", workspace)
    path = workspace.state("prompts") / "quality.json"
    path.write_text(content)
    assert judge("prompts", workspace) == set()
    assert json.loads(path.read_text())["passed"] is True


class Loaded(HTMLParser):
    """Scripts, and whatever a page would load."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "img", "iframe", "object", "embed"):
            self.found.append(tag)
        self.found += [
            value
            for name, value in attrs
            if name in ("src", "href", "data", "srcset", "action") or name.startswith("on")
        ]


def test_values_are_shown_escaped_and_nothing_is_loaded(workspace):
    """Great Expectations' Data Docs put such a value into the page raw, and ask external sites."""
    poison = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    handmade.poison_prompts(workspace, lambda rows: rows.assign(purpose=poison))
    assert "purposes_known" in judge("prompts", workspace)
    pages = list(workspace.data.joinpath("quality").rglob("*.html"))
    assert pages
    for page in pages:
        parser, text = Loaded(), page.read_text()
        parser.feed(text)
        assert parser.found == []
        assert "http:" not in text and "https:" not in text and "<script" not in text
        assert "&lt;script&gt;alert(1)" in text


def test_a_failed_check_says_what_to_look_at(workspace):
    """In the UI's table: what was seen, what was demanded, which class, where it is explained."""
    handmade.write_masks(workspace, cat_not_found)
    results = {
        r.check_name: r
        for r in judge_asset(Project(profile="ci", root=str(workspace.root)), "masks")
    }
    failed = results["every_class_found"]
    assert not failed.passed and "class cat" in failed.description
    assert "1 of 15" in failed.description and "0.1 times the even share" in failed.description
    assert failed.metadata["explained_in"].value == "docs/checks.md#masks"
    assert (ROOT / DOCS).read_text() == explained()


def test_quality_file_is_what_the_stages_read(workspace):
    handmade.write_images(workspace, blank)
    judge("images", workspace)
    verdict = json.loads((workspace.state("images") / "quality.json").read_text())
    assert verdict["digest"] == read_manifest(workspace.folder("images")).digest
    assert verdict["passed"] is False and any("not_blank" in text for text in verdict["failures"])


# (poisoned stage, how, the next expensive stage)
STOPPED = [
    ("images", lambda w: handmade.write_images(w, blank), "masks"),
    ("images", lambda w: handmade.write_images(w, shuffle_entities), "masks"),
    ("triplets", lambda w: handmade.write_triplets(w, cat_rejected), "grounding_model"),
    (
        "synthetic_dataset",
        lambda w: handmade.write_synthetic(
            w, leaked(list(read_shards(w.folder("benchmark"), ["image"])["image"]))
        ),
        "segmenter",
    ),
]


@pytest.mark.parametrize(
    ("stage", "poison", "following"),
    STOPPED,
    ids=["blank images", "shuffled labels", "one class gone", "leak"],
)
def test_poison_stops_the_graph(stage, poison, following, workspace):
    """In the same run by Dagster's blocking checks; alone in a later run, where Dagster would let
    it pass (platform.md, fact 3), by the verdict that stayed with the data."""
    poison(workspace)
    shutil.rmtree(workspace.folder(following))
    project = {"project": Project(profile="ci", root=str(workspace.root))}
    with dg.instance_for_test() as instance:
        result = run(instance, project, [stage, following])
        assert not result.success
        done = {e.asset_key.to_user_string() for e in result.get_asset_materialization_events()}
        assert done == {stage}
        failed = [e for e in result.get_asset_check_evaluations() if not e.passed]
        assert failed and failed[0].metadata["bound"].value
        alone = run(instance, project, [following])
        assert not alone.success
        (failure,) = alone.get_step_failure_events()
        assert "QualityError" in str(failure.event_specific_data.error)
    assert not workspace.folder(following).exists()


def run(instance, resources, assets):
    selection = dg.AssetSelection.assets(*assets)
    job = dg.Definitions(
        assets=ASSETS,
        asset_checks=defs.asset_checks,
        resources=resources,
        jobs=[dg.define_asset_job("some", selection=selection)],
    ).resolve_job_def("some")
    instance.add_dynamic_partitions(PROFILES.name, ["ci"])
    return job.execute_in_process(instance=instance, raise_on_error=False, partition_key="ci")


def test_an_input_without_a_verdict_is_judged_first(workspace):
    """A stage launched alone on data that no job has checked yet."""
    handmade.write_images(workspace, blank)
    shutil.rmtree(workspace.folder("masks"))
    (workspace.state("images") / "quality.json").unlink(missing_ok=True)
    with pytest.raises(QualityError, match="not_blank"):
        expectations.ensure_quality("masks", handmade.params_of(workspace), workspace)
    with pytest.raises(QualityError):  # and without Dagster, from then on
        run_stage("masks", handmade.params_of(workspace), workspace.root)


def test_label_columns_are_those_of_the_schema(workspace):
    assert set(read_shards(workspace.folder("synthetic_dataset")).columns) == set(SYNTHETIC.names)
