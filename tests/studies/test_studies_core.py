"""The studies' ground: shared prompts, specifications, figures with spread and interval."""

import dataclasses
import multiprocessing
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml.images.run_lengths import encode_rle
from ml.images.stored import Pictures
from ml.studies import limits, prompt_sets, sizes
from ml.studies.blocks import Cell, Row, Table
from ml.studies.modules import grounding_params
from ml.studies.records import NOISED, Record
from ml.studies.scores import difference, figure, mean_iou, paired_counts, raw_rows
from ml.studies.specs import Spec, vocabulary_of
from ml.studies.study_run import open_run
from ml.studies.trainings import recipe_of
from ml.words.cells import cell_of
from ml.words.vocabulary import load_vocabulary
from tests.builders.forever import run_forever

# --- what is drawn


def test_one_set_of_prompts_fills_every_cell_of_every_split():
    prompts = prompt_sets.judged_prompts(sizes.FULL, 0)
    assert len({p["seed"] for p in prompts}) == len({p["key"] for p in prompts}) == len(prompts)
    for name in sizes.SPLITS:
        split = load_vocabulary(name)
        counts = pd.Series([cell_of(p["entities"], split.unseen) for p in prompts]).value_counts()
        # 15 and 5 classes 8 times; 10 unseen pairs 6 times; 75 mixed pairs once
        assert counts["one_seen"] == 120 and counts["one_unseen"] == 40
        assert counts["two_unseen"] == 60 and counts["two_mixed"] == 75
    for prompt in prompts:
        assert all(phrase in prompt["text"] for phrase in prompt["phrases"])
        assert all(
            word in phrase for word, phrase in zip(prompt["words"], prompt["phrases"], strict=True)
        )


def test_every_pair_is_judged_in_either_order():
    prompts = prompt_sets.judged_prompts(sizes.FULL, 0)
    pairs = [tuple(p["entities"]) for p in prompts if len(p["entities"]) == 2]
    assert {frozenset(p) for p in pairs} == {
        frozenset(p) for p in combinations(prompt_sets.all_classes().classes, 2)
    }
    ascending = np.mean([a < b for a, b in pairs])
    assert 0.4 < ascending < 0.6


def test_training_prompts_are_balanced_and_cover_each_split():
    prompts = prompt_sets.training_prompts(sizes.FULL, 0)
    assert len(prompts) == 1100
    for name in sizes.SPLITS:
        seen = set(load_vocabulary(name).seen)
        assert sum(set(p["entities"]) <= seen for p in prompts) > 600
    few = prompt_sets.few_class_prompts(sizes.FULL, 5, 0)
    assert len(few) == sizes.FULL.fixed
    assert {e for p in few for e in p["entities"]} == set(load_vocabulary("voc-1").seen[:5])


def test_real_scenes_to_train_on_hold_seen_classes_alone():
    chosen = prompt_sets.drawn_training_classes(sizes.FULL, 0)
    assert len(chosen) == sizes.FULL.real_train
    assert {name for own in chosen for name in own} == set(load_vocabulary("voc-1").seen)


# --- specifications


def test_a_specification_names_what_differs():
    assert Spec().name == "default"
    names = [
        Spec(place=2).name,
        Spec(seen=5).name,
        Spec("voc-2", "paper").name,
        Spec(resolutions=(8, 16)).name,
        Spec(settles=False).name,
        Spec(labels="noised").name,
        Spec(longer=3).name,
    ]
    assert len(set(names)) == len(names) and names[0] == "place-2"
    assert all(c.isalnum() or c in "._-" for name in names for c in name)
    assert Spec("voc-2", settles=False).trained == Spec("voc-2")


def test_a_longer_training_has_as_many_validations():
    run = open_run("quick")
    own, longer = grounding_params(run, Spec()), grounding_params(run, Spec(longer=3))
    assert own == run.params.grounding
    assert (own.steps, own.evaluate_every) == (20, 20)
    assert (longer.steps, longer.evaluate_every) == (60, 60)


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ("detector", "score_threshold"),
        ("triplets", "validation_share"),
        ("diffusion", "guidance_scale"),
        ("grounding", "steps"),
    ],
)
def test_a_training_is_of_the_settings_of_its_pictures_and_masks_too(section, setting):
    run, changed = open_run("quick"), open_run("quick")
    own = getattr(run.params, section)
    other = dataclasses.replace(own, **{setting: getattr(own, setting) / 2})
    changed.__dict__["params"] = dataclasses.replace(run.params, **{section: other})
    assert recipe_of(changed, Spec()) != recipe_of(run, Spec())


def test_without_ray_there_is_one_worker_and_a_word_about_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    assert open_run("quick", tmp_path).workers == 3
    monkeypatch.setitem(sys.modules, "ray", None)
    assert open_run("quick", tmp_path).workers == 1
    assert "one worker on 3 cores: more need Ray" in capsys.readouterr().err
    assert open_run("quick", tmp_path, 2).workers == 2, "what was asked for is refused later"


def test_a_detector_by_its_backends_own_name_needs_no_folder(tmp_path, monkeypatch):
    """It stands in the recipe as its name; a folder that happens to be called so is no model."""
    own = open_run("quick", tmp_path)
    named = dataclasses.replace(
        own.params,
        detector=dataclasses.replace(own.params.detector, backend="torchvision", model="coco"),
    )
    monkeypatch.chdir(tmp_path)
    recipes = []
    for folder in (False, True):
        if folder:
            (tmp_path / "coco").mkdir()
            (tmp_path / "coco" / "annotations.json").write_text("{}")
        run = open_run("quick", tmp_path)
        run.__dict__["params"] = named
        recipes.append(run.recipe())
        assert run.workspace.digest(named, "detector.model") == "coco"
    assert recipes[0] == recipes[1] != own.recipe()


def test_fewer_seen_classes_make_the_others_unseen():
    few = vocabulary_of(Spec(seen=5))
    assert few.seen == load_vocabulary("voc-1").seen[:5]
    assert len(few.unseen) == 15 and set(few.unseen) | set(few.seen) == set(few.classes)
    assert vocabulary_of(Spec()) == load_vocabulary("voc-1")


def test_an_unknown_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown size 'huge': expected one of"):
        open_run("huge", tmp_path)


def test_a_thing_is_made_once_and_again_for_another_recipe(tmp_path):
    run, made = open_run("quick", tmp_path, 1), []

    def make():
        made.append(1)
        return pd.DataFrame({"x": [len(made)]})

    assert run.table("t", "a", make).x[0] == run.table("t", "a", make).x[0] == 1
    assert run.table("t", "b", make).x[0] == 2
    (run.folder / "raw" / ".t.parquet.recipe.json").unlink()  # killed before it was signed
    assert run.table("t", "b", make).x[0] == 3


# --- raw rows of a mask


def block(y: int, x: int, size: int = 4) -> np.ndarray:
    mask = np.zeros((16, 16), bool)
    mask[y : y + size, x : x + size] = True
    return mask


def record(entities: tuple, detected: list, true: list) -> Record:
    n = len(entities)
    return Record(
        key="k",
        text="",
        entities=entities,
        words=entities,
        phrases=entities,
        cell="",
        subset="",
        seed=0,
        size=(16, 16),
        shard=None,
        row=0,
        pictures=Pictures(),
        latent=np.zeros((1, 2, 2)),
        timestep=67,
        rles=tuple("" if m is None else encode_rle(m) for m in detected),
        daam=np.zeros((n, 2, 2)),
        latents=np.zeros((2, 1, 2, 2)),
        sources=(NOISED, "inverted"),
        timesteps=(67, 67),
        evidence=np.zeros((n, 1, 2, 2)),
        truth_rles=tuple(encode_rle(m) for m in true),
        place=0,
    )


def test_what_was_replaced_and_not_signed_is_no_settings_table(tmp_path, monkeypatch):
    """Killed between the two: the rows of B beside the recipe of A were A's."""
    run, killed = open_run("quick", tmp_path), KeyboardInterrupt
    run.table("t", "recipe A", lambda: pd.DataFrame({"of": ["A"]}))

    def kill(*_):
        raise killed

    with monkeypatch.context() as patch, pytest.raises(killed):
        patch.setattr(type(run), "sign", kill)
        run.table("t", "recipe B", lambda: pd.DataFrame({"of": ["B"]}))
    again = run.table("t", "recipe A", lambda: pd.DataFrame({"of": ["A"]}))
    assert list(again["of"]) == ["A"]


def test_rows_of_a_mask_say_where_its_pixels_fell_for_each_judge():
    true = [block(0, 0), block(0, 8)]
    seen_by = record(("dog", "bus"), [block(0, 1), block(0, 8)], true)
    # dog's mask: 2 columns of its own object, 6 columns further on, 2 of them on the bus
    dog = np.zeros((16, 16), bool)
    dog[:4, 2:10] = True
    rows = pd.DataFrame(
        raw_rows(
            seen_by,
            np.stack([dog, block(8, 8)]),
            load_vocabulary("voc-1"),
            {"method": "m", "seed": 0, "split": "voc-1"},
        )
    )
    exact = rows[(rows.judge == "truth") & (rows.entity == "dog")].iloc[0]
    assert (exact.on_own, exact.on_other, exact.on_neither, exact.own) == (8, 8, 16, 16)
    assert exact.iou == pytest.approx(8 / 40) and exact.other == "bus"
    judged = rows[(rows.judge == "detector") & (rows.entity == "dog")].iloc[0]
    assert judged.on_own == 12 and judged.iou == pytest.approx(12 / 36)
    assert set(rows.cell) == {"two_mixed"} and set(rows.source) == {NOISED}
    assert (rows[rows.entity == "bus"].iou == 0).all()


def test_a_picture_that_the_detector_did_not_find_whole_is_judged_by_truth_alone():
    half = record(("dog", "bus"), [None, block(0, 8)], [block(0, 0), block(0, 8)])
    assert not half.whole
    rows = raw_rows(half, half.truth, load_vocabulary("voc-1"), {})
    assert {row["judge"] for row in rows} == {"truth"} and all(row["iou"] == 1 for row in rows)


# --- figures


def raw(ious: dict) -> pd.DataFrame:
    """{(split, seed, key, entity): iou} as raw rows."""
    return pd.DataFrame(
        [
            dict(zip(("split", "seed", "key", "entity"), place, strict=True), iou=iou)
            for place, iou in ious.items()
        ]
    )


def test_mean_over_classes_seeds_and_splits_by_hand():
    rows = raw(
        {
            ("a", 0, "p", "dog"): 0.8,
            ("a", 0, "q", "dog"): 0.6,
            ("a", 0, "q", "cat"): 0.1,
            ("a", 1, "p", "dog"): 1.0,
            ("a", 1, "q", "dog"): 1.0,
            ("a", 1, "q", "cat"): 0.5,
            ("b", 0, "r", "bus"): 0.2,
            ("b", 1, "r", "bus"): 0.4,
        }
    )
    # split a: seed 0 (70 + 10) / 2 = 40, seed 1 (100 + 50) / 2 = 75; split b: 20 and 40
    cell = mean_iou(rows, 50, paper=12.0)
    assert cell.value == pytest.approx((30 + 57.5) / 2) and cell.paper == 12.0
    assert cell.spread == pytest.approx(np.std([30, 57.5], ddof=1))
    assert cell.low <= cell.value <= cell.high
    assert mean_iou(rows[rows.seed == 0], 50).spread is None


def test_interval_is_that_of_a_plain_loop():
    rng = np.random.default_rng(3)
    stack = rng.random((3, 40, 2, 4))
    stack[:, :, 1] = 1.0  # one mask a class and picture

    def statistic(counts):
        return 100 * (counts[..., 0, :] / counts[..., 1, :]).mean(-1)

    cell = figure([stack], statistic, 4000)
    drawn = []
    for _ in range(4000):
        pictures, seeds = rng.integers(40, size=40), rng.integers(3, size=3)
        drawn.append(np.mean([statistic(stack[s][pictures].sum(0)) for s in seeds]))
    assert (cell.low, cell.high) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.25)


def test_a_paired_difference_knows_that_the_pictures_are_the_same():
    rng = np.random.default_rng(0)
    hard = rng.random(30)
    a = raw(
        {("a", s, f"p{i:02d}", "dog"): min(1, h + 0.05) for i, h in enumerate(hard) for s in (0, 1)}
    )
    b = raw({("a", 0, f"p{i:02d}", "dog"): h for i, h in enumerate(hard)})
    cell = figure(paired_counts(a, b), difference, 300)
    assert cell.value == pytest.approx(5, abs=0.3) and 4 < cell.low < cell.high < 5.5
    alone = mean_iou(b, 300)
    assert alone.high - alone.low > 10 * (cell.high - cell.low)
    others = b.assign(key=b.key.replace("p00", "p99"))
    for wrong in (b[b.key != "p00"], others):
        with pytest.raises(ValueError, match="expected rows of the same pictures"):
            paired_counts(a, wrong)


def test_pictures_that_several_splits_judge_are_drawn_together():
    """Three splits of one method without training on the same pictures know no more than one."""
    rng = np.random.default_rng(0)
    ious = {f"p{i:02d}": own for i, own in enumerate(rng.random(60))}

    def of(*splits):
        return raw({(split, 0, key, "dog"): iou for split in splits for key, iou in ious.items()})

    one, three = mean_iou(of("a"), 2000), mean_iou(of("a", "b", "c"), 2000)
    assert three.value == pytest.approx(one.value)
    assert (three.low, three.high) == pytest.approx((one.low, one.high))  # not 1.7 times closer
    halves = raw(
        {(split, 0, f"{split}{key}", "dog"): iou for split in "ab" for key, iou in ious.items()}
    )
    apart = mean_iou(halves, 2000)
    assert (one.high - one.low) / (apart.high - apart.low) == pytest.approx(2**0.5, abs=0.1)
    with pytest.raises(ValueError, match="expected the pictures' keys of 2 splits, got none"):
        figure([np.ones((1, 2, 2, 1))] * 2, difference, 2)


# --- study 5's words


def test_the_verdict_names_every_cell_in_which_the_default_is_behind():
    ahead = [
        Row(f"default - {name}", {cell: Cell(1.0) for cell in limits.UNSEEN})
        for name in ("the paper's module", "DAAM, best threshold", "DAAM, threshold 0.4")
    ]
    assert "ahead of the paper's module and of DAAM in every cell" in limits.verdict(ahead)
    ahead[1] = dataclasses.replace(ahead[1], cells=ahead[1].cells | {"two_unseen": Cell(-2.5)})
    assert "NOT ahead" in limits.verdict(ahead)
    assert "DAAM, best threshold by 2.5 points in two, unseen." in limits.verdict(ahead)
    ahead[0] = Row(ahead[0].label, ahead[0].cells | {"one_unseen": Cell(-0.1, 0.4, -0.7, 0.5)})
    assert "0.1 points in one, unseen, which may be chance (95 % interval -0.7 to 0.5)" in (
        limits.verdict(ahead)
    )


def test_confusion_of_two_words_by_hand():
    base = {"cell": "two_unseen", "key": "k", "split": "s", "seed": 0}
    rows = pd.DataFrame(
        [
            base
            | {"entity": "dog", "other": "car", "on_own": 60, "on_other": 30, "on_neither": 10},
            base | {"entity": "car", "other": "dog", "on_own": 0, "on_other": 50, "on_neither": 50},
            base | {"entity": "dog", "other": "sofa", "on_own": 20, "on_other": 0, "on_neither": 0},
        ]
    )
    table = limits.confusion_table(rows, ("dog", "car", "sofa"), "t")
    cells = {row.label.split()[0]: {k: c.value for k, c in row.cells.items()} for row in table.rows}
    assert cells["dog"] == {"car": 30.0, "sofa": 0.0, "dog": 80.0, "background": 5.0}
    assert cells["car"] == {"dog": 50.0, "car": 0.0, "background": 50.0}
    assert cells["sofa"] == {}
    swapped = limits.share(rows, rows.on_other > rows.on_own, 20)
    assert swapped.value == pytest.approx(100 / 3)
    assert limits.spilled(rows, 20).value == pytest.approx(100 * 80 / 220)


# --- processes


def test_a_killed_run_leaves_no_process_behind(tmp_path):
    """Ray begins with a dozen processes and 20 s of a processor, which is minutes where others
    want it too: the run is waited for as long as it lives, and its processes' end by itself."""
    parent = multiprocessing.get_context("spawn").Process(target=run_forever, args=(tmp_path,))
    parent.start()
    try:
        while not all(
            (tmp_path / name).is_file() and (tmp_path / name).read_text() for name in ("a", "b")
        ):
            assert parent.is_alive(), "it ended before its tasks began"
            time.sleep(0.2)
    finally:
        parent.kill()
        parent.join()
    pids = [int((tmp_path / name).read_text()) for name in ("a", "b")]
    end = time.monotonic() + 300  # they would sleep for an hour
    while any(_alive(pid) for pid in pids):
        assert time.monotonic() < end, f"{pids} outlive the run that started them"
        time.sleep(0.2)


def _alive(pid: int) -> bool:
    """A zombie is not: whoever adopted it will collect it."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_what_absent_words_cost_is_the_difference():
    from ml.studies.absent_words import cost

    said = cost(
        Table(
            "mIoU",
            {"0": "none", "5": "5 absent"},
            [Row("a", {"0": Cell(80.0), "5": Cell(30.5)}), Row("not asked", {"0": Cell(80.0)})],
            "",
        )
    )
    assert "a 49.5." in said and "not asked" not in said
