"""The gate: its rules on hand-made contenders, and the stage on hand-made score files."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from ml.errors import ManifestError
from ml.pipeline.audit import precision
from ml.pipeline.gate import Contender, Policy, Verdict, audit, decide
from ml.pipeline.marks import Mark, add_marks, picture_sha256
from ml.pipeline.runner import run_stage
from ml.pipeline.stages.benchmark_scores import write_scores
from ml.pipeline.stages.promotion import (
    champion_folder,
    champion_record,
    grounding_counts,
    grounding_statistic,
)
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.store.files import sha256_json
from ml.store.making import write_shards
from ml.store.manifest import Manifest, describe_files, read_manifest, write_manifest
from ml.words.vocabulary import load_vocabulary

VOCABULARY = load_vocabulary("voc-1")


def mean_percent(counts):
    return 100 * counts[..., 0] / counts[..., 1]


POLICY = Policy(floor=50.0, statistic=mean_percent, resamples=500)


def contender(digest, values, test_set="pictures", keys=None):
    values = np.asarray(values, float)
    counts = np.stack([values, np.ones(len(values))], axis=1)
    keys = tuple(keys or map(str, range(len(values))))
    return Contender(digest, float(mean_percent(counts.sum(0))), test_set, keys, counts)


NOISE = np.random.default_rng(0).uniform(-0.1, 0.1, 200)


def test_floor():
    low = decide(contender("a", 0.4 + NOISE), None, POLICY)
    assert (low.promote, low.state) == (False, "refused")
    assert "does not reach the floor of 50.0 %" in low.reason
    first = decide(contender("a", 0.6 + NOISE), None, POLICY)
    assert (first.promote, first.state) == (True, "promoted")
    assert "first champion" in first.reason
    assert not decide(contender("a", [np.nan]), None, POLICY).promote


def test_clear_regression_is_refused_though_it_reaches_the_floor():
    verdict = decide(contender("b", 0.6 + NOISE), contender("a", 0.7 + NOISE), POLICY)
    assert (verdict.promote, verdict.state) == (False, "refused")
    assert verdict.difference == pytest.approx((-10, -10, -10))
    assert "regression" in verdict.reason


def test_better_and_as_good_are_promoted():
    assert decide(contender("b", 0.8 + NOISE), contender("a", 0.7 + NOISE), POLICY).promote
    other = np.random.default_rng(1).permutation(NOISE) - 0.002  # 0.2 points down, within noise
    verdict = decide(contender("b", 0.7 + other), contender("a", 0.7 + NOISE), POLICY)
    points, low, high = verdict.difference
    assert verdict.promote
    assert low < points < 0 < high


def test_pairing_finds_a_small_regression_that_the_pictures_differences_would_hide():
    """One point down on every picture, where pictures differ by 60 points among themselves."""
    hard = np.linspace(0.4, 1.0, 200)
    assert not decide(contender("b", hard - 0.01), contender("a", hard), POLICY).promote


@pytest.mark.parametrize(
    "change", [{"test_set": "others"}, {"keys": [f"other-{i}" for i in range(200)]}]
)
def test_other_pictures_cannot_be_compared(change):
    verdict = decide(contender("b", 0.95 + NOISE, **change), contender("a", 0.6 + NOISE), POLICY)
    assert (verdict.promote, verdict.state) == (False, "refused")
    assert (
        "another test set" in verdict.reason and "orchestration.mlflow.champion" in verdict.reason
    )
    assert verdict.difference is None


def test_other_classes_cannot_be_compared():
    a = contender("a", 0.6 + NOISE)
    b = dataclasses.replace(a, digest="b", counts=np.ones((200, 3)))
    assert decide(b, a, POLICY).state == "refused"


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_never_promotes(score):
    bad = dataclasses.replace(contender("b", 0.6 + NOISE), score=score)
    assert not decide(bad, None, POLICY).promote
    good, nan = contender("b", 0.9 + NOISE), contender("a", np.full(200, np.nan))
    verdict = decide(good, nan, POLICY)
    assert verdict.state == "refused" and "not comparable" in verdict.reason
    assert not decide(good, None, dataclasses.replace(POLICY, floor=np.nan)).promote


def test_only_a_new_model_is_promoted():
    verdict = decide(contender("b", 0.9 + NOISE), contender("a", 0.6 + NOISE), POLICY, ["b", "c"])
    assert (verdict.promote, verdict.state) == (False, "refused")
    assert "was champion before" in verdict.reason


def test_the_champion_itself_is_kept():
    a = contender("a", 0.4 + NOISE)  # even below a floor that was raised since
    assert decide(a, a, POLICY) == decide(a, contender("a", [0.9]), POLICY)
    verdict = decide(a, a, POLICY)
    assert (verdict.promote, verdict.state, verdict.reason) == (False, "kept", "already champion")


@pytest.mark.parametrize(
    "right, wrong, minimum, state, said",
    [
        (0, 0, None, "promoted", "first"),
        (1, 9, None, "promoted", "first"),
        (0, 0, 80, "refused", "nobody has judged a mask of the present synthetic set"),
        (95, 5, 80, "promoted", "first; 95 of 100 judged masks"),
        (95, 5, 95, "refused", "too few were judged to be sure of it"),  # 88.8 at the lower end
        (9, 1, 80, "refused", "too few were judged to be sure of it"),
        (70, 30, 80, "refused", "asks for 80.0 %"),
    ],
)
def test_what_people_judged_can_keep_a_model_from_promotion(right, wrong, minimum, state, said):
    ticks = [{"entity": "dog", "verdict": "right"}] * right
    ticks += [{"entity": "dog", "verdict": "wrong mask"}] * wrong
    judged = precision(ticks)[-1] if ticks else None
    verdict = audit(Verdict(True, "promoted", "first"), judged, minimum)
    assert (verdict.state, verdict.promote) == (state, state == "promoted")
    assert said in verdict.reason
    refused = Verdict(False, "refused", "too low")
    assert audit(refused, judged, minimum) is refused


def grounding_rows(iou: float) -> pd.DataFrame:
    """Two classes a cell with unequal numbers of masks: classes weigh alike, not masks."""
    rows = []
    for cell in ("one_seen", "one_unseen", "two_seen", "two_mixed", "two_unseen"):
        for i in range(9):
            entity, value = ("dog", iou + 0.2) if i < 3 else ("cat", iou - 0.2)
            rows.append(
                {
                    "key": f"{cell}-{i}",
                    "cell": cell,
                    "entity": entity,
                    "seen": True,
                    "iou_ours": value,
                    "iou_daam": 0.1,
                }
            )
    return pd.DataFrame(rows)


def test_grounding_score_is_the_mean_over_cells_of_the_mean_over_classes(tmp_path):
    rows = grounding_rows(0.7)
    rows.loc[rows.cell == "two_unseen", "iou_ours"] -= 0.5
    rows.sample(frac=1, random_state=0).to_parquet(tmp_path / "scores.parquet")
    keys, counts = grounding_counts(tmp_path / "scores.parquet")
    by_class = rows.groupby(["cell", "entity"]).iou_ours.mean()
    expected = 100 * by_class.groupby("cell").mean().mean()
    assert expected == pytest.approx(60)
    assert grounding_statistic(counts.sum(0)) == pytest.approx(expected)
    assert list(keys) == sorted(rows.key)


def finish(workspace: Workspace, stage: str, inputs: dict) -> None:
    folder = workspace.folder(stage)
    write_manifest(folder, Manifest(stage, 1, {}, inputs, describe_files(folder, {}), {}))


def put_scores(
    workspace: Workspace, model: str, *, right: float, iou: float = 0.8, benchmark: str = "frozen"
) -> None:
    """Score files as the two scoring stages leave them. right: share of each class's pixels."""
    folder = workspace.folder("benchmark_scores")
    folder.mkdir(parents=True, exist_ok=True)
    rng, stack = np.random.default_rng(0), np.zeros((60, 21, 21), np.int64)
    for i in range(60):
        label = i % 20 + 1
        hit = int(100 * right) + rng.integers(-3, 4)
        stack[i, label, label], stack[i, label, 0], stack[i, 0, 0] = hit, 100 - hit, 1000
    keys = [f"benchmark-{i:06d}" for i in range(60)]
    write_scores(folder / "scores.parquet", keys, {"synthetic": stack, "real_upper_bound": stack})
    finish(
        workspace,
        "benchmark_scores",
        {"benchmark": benchmark, "segmenter": f"s-{model}", "real_bound": "r"},
    )
    folder = workspace.folder("grounding_scores")
    folder.mkdir(parents=True, exist_ok=True)
    grounding_rows(iou).to_parquet(folder / "scores.parquet")
    finish(
        workspace,
        "grounding_scores",
        {"images": "i", "triplets": "t", "grounding_model": f"g-{model}"},
    )


@pytest.fixture
def gate(tmp_path):
    params = load_params()
    params = dataclasses.replace(
        params, benchmark=dataclasses.replace(params.benchmark, bootstrap=200)
    )
    workspace = Workspace(tmp_path, params.profile)

    def promote(force=False, **settings):
        promotion = dataclasses.replace(params.promotion, **settings)
        asked = dataclasses.replace(params, promotion=promotion)
        return run_stage("promotion", asked, tmp_path, force=force)

    return workspace, promote


def test_first_champion_is_recorded_and_found_again(gate):
    workspace, promote = gate
    put_scores(workspace, "a", right=0.7)
    facts = promote().facts
    written = json.loads((workspace.folder("promotion") / "verdict.json").read_text())
    assert written == facts
    assert facts["segmenter"]["promote"] and facts["grounding"]["promote"]
    assert facts["segmenter"]["candidate"]["score"] == pytest.approx(70, abs=1.5)
    assert facts["grounding"]["candidate"]["score"] == pytest.approx(80)
    record = champion_record(workspace, "segmenter")
    assert record["digest"] == "s-a" == facts["segmenter"]["digest_after"]
    assert record["test_set"] == sha256_json(["frozen"])
    before = record, champion_record(workspace, "grounding")
    assert promote().cached
    forced = promote(force=True).facts
    assert {facts["state"] for facts in forced.values()} == {"kept"}
    assert forced["segmenter"]["digest_after"] == "s-a"
    assert before == (
        champion_record(workspace, "segmenter"),
        champion_record(workspace, "grounding"),
    )


def put_labels(workspace: Workspace, count: int) -> list[Mark]:
    """A synthetic set of `count` pictures that the scores are of, and a mark "right" on each."""
    keys = [f"synthetic-{i:06d}" for i in range(count)]
    frame = pd.DataFrame({"key": keys, "image": [key.encode() for key in keys]})
    frame = frame.assign(entities=[["dog"]] * count, words=[["dog"]] * count, accepted=True)
    schema = pa.Schema.from_pandas(frame, preserve_index=False)
    folder = workspace.folder("synthetic_dataset")
    rows = write_shards(folder, "by hand", [range(count)], lambda _: frame, schema)
    made = Manifest("synthetic_dataset", 1, {}, {}, describe_files(folder, rows), {})
    write_manifest(folder, made)
    scores = read_manifest(workspace.folder("benchmark_scores"))
    inputs = scores.inputs | {"synthetic_dataset": made.digest}
    finish(workspace, "benchmark_scores", inputs)
    return [
        Mark("synthetic_dataset", picture_sha256(image), key, "dog", "right")
        for key, image in zip(frame.key, frame.image, strict=True)
    ]


def test_the_stage_asks_for_judged_masks_of_the_set_that_was_scored(gate):
    workspace, promote = gate
    put_scores(workspace, "a", right=0.7)
    marks = put_labels(workspace, 40)
    first = promote(min_audited_precision=90.0).facts
    assert {facts["state"] for facts in first.values()} == {"refused"}
    assert "nobody has judged" in first["segmenter"]["reason"]
    add_marks(workspace, marks[:20])
    facts = promote(min_audited_precision=90.0).facts
    assert "20 of 20 judged" in facts["grounding"]["reason"], "the marks are part of the recipe"
    assert champion_record(workspace, "segmenter") is None
    add_marks(workspace, marks)
    facts = promote(min_audited_precision=90.0).facts  # 91.2 at the lower end
    assert facts["segmenter"]["promote"] and "40 of 40 judged" in facts["segmenter"]["reason"]
    assert promote(min_audited_precision=90.0).cached
    put_labels(workspace, 41)
    labels = read_manifest(workspace.folder("synthetic_dataset"))
    inputs = read_manifest(workspace.folder("benchmark_scores")).inputs
    finish(workspace, "benchmark_scores", inputs | {"synthetic_dataset": "of another set"})
    with pytest.raises(ManifestError, match=f"is {labels.digest[:12]} now"):
        promote(min_audited_precision=90.0)


def test_worse_is_refused_better_replaces(gate):
    workspace, promote = gate
    put_scores(workspace, "a", right=0.7)
    promote()
    put_scores(workspace, "b", right=0.6, iou=0.7)
    facts = promote().facts
    assert facts["segmenter"]["state"] == facts["grounding"]["state"] == "refused"
    assert facts["segmenter"]["interval"][1] < 0
    assert facts["segmenter"]["digest_after"] == "s-a"
    assert champion_record(workspace, "grounding")["digest"] == "g-a"
    put_scores(workspace, "c", right=0.8)
    facts = promote().facts
    assert facts["segmenter"]["difference"] == pytest.approx(10, abs=0.5)
    assert facts["segmenter"]["champion"]["digest"] == "s-a"
    assert champion_record(workspace, "segmenter")["digest"] == "s-c"
    assert promote().cached


def test_another_benchmark_is_refused_until_the_champion_is_scored_there(gate):
    workspace, promote = gate
    put_scores(workspace, "a", right=0.6)
    promote()
    put_scores(workspace, "b", right=0.9, benchmark="redrawn")
    facts = promote().facts["segmenter"]
    assert facts["state"] == "refused" and "another test set" in facts["reason"]
    assert facts["digest_after"] == "s-a"
    put_scores(workspace, "a", right=0.6, benchmark="redrawn")
    assert promote().facts["segmenter"]["state"] == "kept"
    assert champion_record(workspace, "segmenter")["test_set"] == sha256_json(["redrawn"])
    put_scores(workspace, "b", right=0.9, benchmark="redrawn")
    facts = promote().facts["segmenter"]
    assert facts["promote"] and facts["difference"] == pytest.approx(30, abs=1)


def test_a_former_champion_does_not_come_back(gate):
    workspace, promote = gate
    for model, right in (("a", 0.6), ("b", 0.7), ("c", 0.8)):
        put_scores(workspace, model, right=right)
        assert promote().facts["segmenter"]["promote"]
    assert champion_record(workspace, "segmenter")["former"] == ["s-a", "s-b"]
    put_scores(workspace, "b", right=0.9)
    assert promote(force=True).facts["segmenter"]["state"] == "refused"
    assert champion_record(workspace, "segmenter")["digest"] == "s-c"


def test_tampered_champion_is_refused(gate):
    workspace, promote = gate
    put_scores(workspace, "a", right=0.7)
    promote()
    grounding_rows(0.1).to_parquet(champion_folder(workspace, "grounding") / "scores.parquet")
    put_scores(workspace, "b", right=0.75)
    with pytest.raises(ValueError, match="not what the champion was promoted on"):
        promote()


def test_unfinished_scores_are_refused(gate):
    with pytest.raises(ManifestError, match="grounding_scores"):
        gate[1]()


KILLED = """
import os, signal, sys
from pathlib import Path
from ml.pipeline.runner import run_stage
from ml.pipeline.stages import promotion
from ml.settings.profile import load_params

record = promotion._record
def run(records):
    left = [records]
    def and_die(*arguments):
        record(*arguments)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    promotion._record = and_die
    run_stage("promotion", load_params(), Path(sys.argv[1]) / str(records))

for records in (1, 2):
    child = os.fork()
    if not child:
        try:
            run(records)
        finally:
            os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Below it, by the number of champions that it had recorded, roots of runs that were killed
    then: children of one process, which imports what they need once."""
    root = tmp_path_factory.mktemp("killed")
    for records in (1, 2):
        put_scores(Workspace(root / str(records), "micro"), "a", right=0.7)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(root)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(-signal.SIGKILL)] * 2, done.stdout + done.stderr
    return root


@pytest.mark.parametrize("records", [1, 2])
def test_a_run_killed_after_it_had_promoted_ends_with_the_verdict_of_one_that_was_not(
    killed, tmp_path, records
):
    """The verdict depends on who is champion, and the killed run has changed that already."""
    digests = {}
    shutil.copytree(killed / str(records), tmp_path / "killed")
    for name in ("killed", "undisturbed"):
        workspace = Workspace(tmp_path / name, "micro")
        if name == "undisturbed":
            put_scores(workspace, "a", right=0.7)
        else:
            assert champion_record(workspace, "grounding")["digest"] == "g-a"
        report = run_stage("promotion", load_params(), workspace.root)
        assert {facts["state"] for facts in report.facts.values()} == {"promoted"}
        assert champion_record(workspace, "segmenter")["digest"] == "s-a"
        digests[name] = report.digest
    assert digests["killed"] == digests["undisturbed"]


def test_a_verdict_of_a_killed_run_is_for_the_champion_of_then(killed, tmp_path):
    """Somebody else's champion came on record before the run was started again."""
    root = tmp_path / "killed"
    shutil.copytree(killed / "1", root)
    workspace = Workspace(root, "micro")
    better = Workspace(tmp_path / "other", "micro")
    put_scores(better, "d", right=0.95)
    run_stage("promotion", load_params(), better.root)
    shutil.copytree(
        better.data / "champion" / "segmenter", workspace.data / "champion" / "segmenter"
    )
    facts = run_stage("promotion", load_params(), root).facts
    assert facts["grounding"]["state"] == "promoted", "its own, of before the kill"
    assert facts["segmenter"]["state"] == "refused"
    assert facts["segmenter"]["digest_after"] == "s-d"
    assert champion_record(workspace, "segmenter")["digest"] == "s-d"
