"""Each kind of poison, at a level that must be caught, is caught by the rule meant for it; sound
data passes. Truth is exact: scenes drawn by hand, their own masks as heat maps."""

import dataclasses
import shutil

import dagster as dg
import numpy as np
import pytest

from benchmarks.poison import POISONS
from benchmarks.poisons.asked import HOSTILE
from benchmarks.poisons.copies import broken, copy_of, failures, put_rows, replace_folder, rows_of
from benchmarks.poisons.kind import Poison
from benchmarks.poisons.upstream import MIXUPS, Mixup
from ml.errors import ManifestError
from ml.pipeline.recipe import recipe_of
from ml.pipeline.table import STAGE
from ml.pipeline.workspace import Workspace
from ml.quality.captions import caption_fault
from ml.quality.edges import REACH, placement, strengths
from ml.quality.heat import cover, inside_rank, own_excess
from ml.quality.rules import RULES, bounds
from ml.quality.tables import TABLES
from ml.words.texts import parse_text
from ml.words.vocabulary import load_vocabulary
from orchestration import expectations
from orchestration.checks import judge as judge_asset
from orchestration.resources import Project
from tests.builders import handmade

MISSED = {  # the page says why
    ("images", "mirrored duplicates"),
    ("images", "near duplicates"),
    ("synthetic_dataset", "near duplicates"),
    ("images", "pictures of other captions"),  # its detector is not here
    ("images", "heat maps of other pictures"),  # judged beside masks, below
    ("synthetic_dataset", "mirrored duplicates"),
    ("masks", "coarse masks, enlarged smoothly"),
    ("masks", "two classes exchanged in whole: masks"),
    ("triplets", "rejected rows accepted"),  # a hand-made set rejects none
    ("synthetic_dataset", "label noise: two things' labels and masks swapped"),
    ("synthetic_dataset", "benchmark scenes leaked, 10 levels brighter"),
    ("synthetic_dataset", "benchmark scenes leaked, cropped by a fifth"),
    ("prompts", "imbalance: one-object prompts ask for one class"),  # of 60 one-object prompts
}
CAUGHT = [
    p
    for p in POISONS
    if (p.stage, p.name) not in MISSED and not p.name.startswith("hostile")  # below
]


@pytest.fixture
def copy(sound, tmp_path) -> Workspace:
    return copy_of(sound, tmp_path)


@pytest.fixture(scope="module")
def spoiled(sound, tmp_path_factory) -> Workspace:
    """A copy for all kinds, mended by each test."""
    return copy_of(sound, tmp_path_factory.mktemp("spoiled"))


def spoil(poison: Poison, level: float, sound: Workspace, copy: Workspace) -> None:
    rows = poison.change(rows_of(sound, poison.stage), level, np.random.default_rng(5), copy)
    put_rows(copy, poison.stage, rows, handmade.params_of(sound))


def named(stage: str, name: str) -> Poison:
    (found,) = [p for p in POISONS if p.stage == stage and p.name == name]
    return found


@pytest.mark.parametrize("poison", CAUGHT, ids=[f"{p.stage}: {p.name}" for p in CAUGHT])
def test_poison_at_its_highest_level_is_caught(poison, sound, spoiled):
    spoil(poison, poison.levels[-1], sound, spoiled)
    try:
        assert failures(spoiled, poison.stage, handmade.params_of(sound))
    finally:
        replace_folder(sound.folder(poison.stage), spoiled.folder(poison.stage))


# (stage, poison, level, a rule that only this poison's kind breaks)
MEANT = [
    ("masks", "all masks shifted", 2, "masks_in_place"),
    ("masks", "some masks shifted by 4 px", 0.2, "masks_not_moved_alike"),
    ("masks", "masks swapped within pictures of two", 0.2, "masks_hottest_for_own_word"),
    ("masks", "wrong polarity", 0.2, "masks_hot"),
    ("masks", "label noise: another class's name", 0.05, "none_unasked"),
    ("masks", "coarse masks, enlarged from a half", 0.2, "masks_fine"),
    ("masks", "masks of half the size", 0.0, "masks_fit"),
    ("images", "latents with a NaN", 0.0, "latents_sound"),
    ("images", "wrong seeds", 0.0, "as_prompted"),
    ("images", "pictures of white noise", 0.05, "not_noise"),
    ("triplets", "all masks shifted", 1, "as_masked"),
    ("triplets", "a picture in training and validation", 0.0, "one_subset"),
    ("synthetic_dataset", "label maps and masks shifted", 2, "masks_in_place"),
    ("synthetic_dataset", "label maps shifted", 1, "labels_masked"),
    ("synthetic_dataset", "all background", 0.0, "labels_present"),
    ("synthetic_dataset", "benchmark scenes leaked, mirrored", 0.0, "no_overlap_found"),
]


@pytest.mark.parametrize(
    ("stage", "name", "level", "rule"), MEANT, ids=[f"{m[0]}: {m[1]}" for m in MEANT]
)
def test_great_expectations_and_the_bench_agree(stage, name, level, rule, sound, copy):
    """The rule that is meant for it breaks, and both judges say the same of every rule."""
    spoil(named(stage, name), level, sound, copy)
    params = handmade.params_of(sound)
    tables = TABLES[stage](params, copy)
    results = expectations.judge(stage, tables, bounds(stage, params))
    failed = [result.name for result in results if not result.passed]
    assert rule in failed
    assert sorted(failed) == sorted(broken(stage, tables, params))


def test_placement_is_not_judged_where_its_bounds_were_not_measured(sound, copy):
    """`checks.placement: false` leaves out the rules on edges and heat maps, and no other."""
    spoil(named("masks", "all masks shifted"), 4, sound, copy)
    strict = handmade.params_of(sound)
    lax = dataclasses.replace(strict, checks=dataclasses.replace(strict.checks, placement=False))
    tables = TABLES["masks"](strict, copy)
    for params in (strict, lax):
        results = expectations.judge("masks", tables, bounds("masks", params))
        failed = {result.name for result in results if not result.passed}
        assert ("masks_in_place" in failed) is params.checks.placement
    left_out = {r.name for r in results if r.observed == expectations.NOT_JUDGED}
    assert left_out == {rule.name for rule in RULES["masks"] if rule.placement} != set()


def test_the_bench_finds_nothing_in_sound_data(sound):
    for stage in ("prompts", "images", "masks", "triplets", "synthetic_dataset", "benchmark"):
        assert failures(sound, stage, handmade.params_of(sound)) == []


def test_heat_maps_of_other_pictures_show_beside_masks(sound, copy):
    spoil(named("images", "heat maps of other pictures"), 1, sound, copy)
    params = handmade.params_of(sound)
    assert failures(copy, "images", params) == []
    assert {"masks_hot", "heat_finds_classes"} & set(failures(copy, "masks", params))


@pytest.mark.parametrize("mixup", MIXUPS, ids=[f"{m.stage}: {m.name}" for m in MIXUPS])
def test_a_folder_that_does_not_belong_is_refused(mixup: Mixup, sound, copy, tmp_path):
    """By the checks, or by the next stage, which compares the manifests."""
    params = handmade.params_of(sound)
    other = Workspace(tmp_path / "other", sound.profile)
    shutil.copytree(copy.data, other.data)
    rows = rows_of(sound, mixup.stage)  # another seed's: other pictures under the same keys
    keys = rows["key"].to_numpy()[::-1]
    put_rows(other, mixup.stage, rows.assign(key=keys), params)
    then = mixup.change(copy, params, other)
    caught = bool(failures(copy, mixup.stage, then))
    if not caught:
        with pytest.raises(ManifestError):
            recipe_of(STAGE[mixup.next], then, copy)


def test_shifted_masks_block_the_next_stage(sound, tmp_path):
    """Dagster materializes triplets neither in the poisoned run nor alone afterwards."""
    from tests.quality.test_quality import run

    shutil.copytree(sound.root, tmp_path, dirs_exist_ok=True)
    workspace = Workspace(tmp_path, "ci")
    spoil(named("masks", "all masks shifted"), 4, sound, workspace)
    shutil.rmtree(workspace.folder("triplets"))
    project = {"project": Project(profile="ci", root=str(tmp_path))}
    with dg.instance_for_test() as instance:
        result = run(instance, project, ["masks", "triplets"])
        failed = {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}
        assert not result.success and "masks_in_place" in failed
        alone = run(instance, project, ["triplets"])
        (failure,) = alone.get_step_failure_events()
        assert "QualityError" in str(failure.event_specific_data.error)
    assert not workspace.folder("triplets").exists()


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_captions_are_caught_and_harmless_where_they_are_shown(kind, sound, tmp_path):
    """The page of verdicts has them escaped, Dagster's metadata as plain text."""
    shutil.copytree(sound.data, tmp_path / "data" / "ci")
    workspace = Workspace(tmp_path, "ci")
    spoil(named("prompts", f"hostile captions: {kind}"), 0.0, sound, workspace)
    results = {
        r.check_name: r for r in judge_asset(Project(profile="ci", root=str(tmp_path)), "prompts")
    }
    assert not results["captions_plain"].passed
    page = (workspace.data / "quality" / "index.html").read_text()
    for text in (page, results["captions_plain"].description):
        assert "<script" not in text and "<img" not in text
        assert "\x1b" not in text and "\u202e" not in text and len(text) < 10**6
    for result in results.values():
        assert not any(
            isinstance(v, dg.MarkdownMetadataValue)
            and kind in HOSTILE
            and HOSTILE[kind][:20] in v.md_str
            for v in result.metadata.values()
        )


@pytest.mark.parametrize(
    "text",
    ["a photograph of a dog", "- a dog on grass", "a dog <3", "e=mc2 and a cat", "+ two cats",
     "Ein Hund, größer als eine Katze (rot)", "كلب على العشب", "a dog & a \"cat\""],
)  # fmt: skip
def test_captions_that_people_write_are_plain(text):
    assert caption_fault(text) == ""


def test_what_a_users_file_takes_is_plain():
    vocabulary = load_vocabulary("voc-1")
    longest = " ".join(["very"] * 38 + ["dog"])
    assert caption_fault(parse_text(longest, vocabulary).text) == ""


def test_a_missing_value_breaks_its_rule(sound, copy):
    """Great Expectations looks past NaN: a score that is none would pass the range of scores."""
    params = handmade.params_of(sound)
    rows = rows_of(sound, "masks").copy()
    rows.loc[3, "score"] = np.nan
    put_rows(copy, "masks", rows, params)
    results = expectations.judge("masks", TABLES["masks"](params, copy), bounds("masks", params))
    (score,) = [result for result in results if result.name == "scores_in_range"]
    assert not score.passed and score.observed.startswith("1 of ")
    assert rows["key"].iloc[3] in score.examples[0]


# The measures, on arrays whose answer is known.


def test_inside_rank_is_the_probability_that_inside_is_hotter():
    heat = np.arange(16.0).reshape(4, 4)
    mask = heat >= 12
    assert inside_rank(heat, mask.astype(float)) == 1.0
    assert inside_rank(-heat, mask.astype(float)) == 0.0
    assert inside_rank(np.ones((4, 4)), mask.astype(float)) == 0.5
    assert inside_rank(heat, np.zeros((4, 4))) == inside_rank(heat, np.ones((4, 4))) == 0.0
    rng = np.random.default_rng(0)
    heat, inside = rng.random((8, 8)), rng.random((8, 8)) < 0.3
    pairs = [a > b for a in heat[inside] for b in heat[~inside]]
    assert inside_rank(heat, inside.astype(float)) == pytest.approx(np.mean(pairs))


def test_own_excess_is_positive_for_the_own_word_only():
    masks = np.zeros((2, 8, 8), bool)
    masks[0, :4, :4], masks[1, 4:, 4:] = True, True
    heat = masks.astype(np.float32)
    assert own_excess(heat, masks[0].astype(float), 0) > 0 > own_excess(heat, masks[0] * 1.0, 1)
    assert cover(np.kron(masks[0], np.ones((4, 4))).astype(bool), (8, 8)).sum() == 16


@pytest.mark.parametrize("way", [(0, 0), (3, -5), (-8, 8)])
def test_strength_is_greatest_at_the_offset_that_was_made(way):
    rng = np.random.default_rng(1)
    lines = np.zeros((20, 64, 64), bool)
    lines[:, 16:48, 16:48] = rng.random((20, 32, 32)) < 0.1
    edges = np.roll(lines, way, (1, 2)).astype(np.float32)
    best = strengths(edges, lines).reshape(20, -1).argmax(1)
    offsets = np.stack(np.unravel_index(best, (2 * REACH + 1,) * 2), 1) - REACH
    assert (offsets == way).all()
    found = placement(zip(edges, lines, strict=True))
    assert (found["in_place"] == 1.0) == (way == (0, 0))
    assert found["moved_alike"] == float(way != (0, 0)) and found["on_edges"] == float(
        way == (0, 0)
    )


def test_no_outline_moves_nothing():
    assert placement([]) == {"in_place": 1.0, "on_edges": 1.0, "moved_alike": 0.0}


def test_every_kind_is_of_a_stage_with_rules():
    assert {poison.stage for poison in POISONS} <= set(RULES)
    assert len({poison.name for poison in POISONS}) >= 12
    assert all(dataclasses.is_dataclass(poison) and poison.levels for poison in POISONS)
