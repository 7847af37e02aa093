"""The studies run for real, cut down: study 1 through Dagster, and all of them by the command."""

import dataclasses
import functools
import os
import subprocess
import sys
import time

import dagster as dg
import numpy as np
import pytest

from ml.diffusion.loading import load_pipeline
from ml.metrics.iou import binary_iou
from ml.settings.params import Params
from ml.settings.profile import ROOT, load_params
from ml.studies import picture_makers, protocol_one_sheet, query_labels, study_run, trainings
from ml.studies.ablations import groups
from ml.studies.catalogue import STUDIES
from ml.studies.modules import model_folder
from ml.studies.records import GENERATED, INVERTED, NOISED
from ml.studies.saved import load
from ml.studies.specs import Spec
from ml.studies.study_run import open_run
from ml.studies.training_sets import drawn_pictures, judged_pictures, training_set
from ml.studies.trainings import rows_of
from ml.words.vocabulary import load_vocabulary
from orchestration.studies import PAPER_ASSETS, PaperRun

STEPS = 4
"""Of each training: the quick size's twenty cost more, as do its pictures and their denoising
steps. No test here asks how well a module learned; the test of the command, below, has them all."""


def with_short_trainings(profile: str) -> Params:
    params = load_params(profile)
    grounding = dataclasses.replace(params.grounding, steps=STEPS, evaluate_every=STEPS)
    benchmark = dataclasses.replace(params.benchmark, bootstrap=50)
    diffusion = dataclasses.replace(params.diffusion, steps=6)
    return dataclasses.replace(
        params, grounding=grounding, benchmark=benchmark, diffusion=diffusion
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Study 1 of the quick size, made by its Dagster asset. In this process: pytest's workers have
    the cores already, and what Ray adds is tested beside it (`tests/compute/test_workers.py`)."""
    root = tmp_path_factory.mktemp("studies")
    asset = next(a for a in PAPER_ASSETS if a.key.to_user_string() == "paper_protocol_one")
    paper = PaperRun(size="quick", root=str(root), workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_run, "load_params", with_short_trainings)
        few = dataclasses.replace(study_run.SIZES["quick"], train_two=36)
        patch.setitem(study_run.SIZES, "quick", few)
        patch.setattr(query_labels, "ITERATIONS", 1)
        once = functools.cache(load_pipeline)  # thirty tasks, each of which would load it
        for module in (picture_makers, protocol_one_sheet, query_labels, trainings):
            patch.setattr(module, "load_pipeline", once)
        done = dg.materialize([asset], resources={"paper": paper})
        assert done.success
        yield open_run("quick", root, 1)


def test_study_one_has_every_method_and_its_figures_are_of_its_own_masks(run):
    first = load(run, "protocol_one").blocks[0]
    assert [row.label for row in first.rows] == [
        "our default",
        "the paper's module",
        "the paper's module, our upsampling",
        "DAAM, best threshold",
        "DAAM, threshold 0.4",
        "contrast alone",
        "OVAM, attribution prompts",
        "OVAM, optimised queries",
    ]
    rows = rows_of(run, Spec())
    judged = rows[(rows.source == GENERATED) & (rows.cell == "two_unseen")]
    by_class = judged.groupby(["seed", "entity"]).iou.mean()  # a second way to the same figure
    ours = first.rows[0].cells["two_unseen"]
    assert ours.value == pytest.approx(100 * by_class.groupby("seed").mean().mean())
    assert ours.low < ours.value < ours.high and ours.spread > 0
    assert first.rows[1].cells["two_unseen"].paper == 55.74


def test_no_mask_of_an_unseen_class_was_learned_from(run):
    samples = training_set(run, Spec())
    assert {name for s in samples for name in s.entities} <= set(load_vocabulary("voc-1").seen)
    assert {s.subset for s in samples} == {"train", "validation"}


def test_the_smallest_training_of_the_quick_size_has_pictures_to_validate_on(run):
    specs = {spec for group in groups(run) for spec in group.rows.values()}
    smallest = min((spec for spec in specs if spec.pictures), key=lambda spec: spec.pictures)
    assert smallest.pictures == run.size.fixed // 4
    assert {s.subset for s in training_set(run, smallest)} == {"train", "validation"}


def test_drawn_scenes_carry_their_exact_masks_and_two_latents(run):
    scenes = drawn_pictures(run)
    assert {s.sources for s in scenes} == {(NOISED, INVERTED)}
    ious = [
        binary_iou(found, true)
        for s in scenes
        if s.whole
        for found, true in zip(s.masks, s.truth, strict=True)
    ]
    assert sum(ious) / len(ious) > 0.75  # the detector is good, and not perfect
    rows = rows_of(run, Spec())
    assert {(s, j) for s, j in zip(rows.source, rows.judge, strict=True)} == {
        (GENERATED, "detector"),
        (NOISED, "detector"),
        (NOISED, "truth"),
        (INVERTED, "detector"),
        (INVERTED, "truth"),
    }


def test_kept_latents_run_from_the_last_step_to_the_first(run):
    for record in judged_pictures(run)[:3]:
        assert list(record.timesteps) == sorted(record.timesteps)
        noise = record.at(len(record.timesteps) - 1)
        assert noise.timestep == 999 and noise.latent.std() == pytest.approx(1, abs=0.1)
        assert record.timestep < 200


def test_what_is_in_place_is_not_made_again_and_one_seed_alone_is(run, monkeypatch):
    stamp = {p: p.stat().st_mtime_ns for p in run.folder.rglob("*.parquet")}
    gone = model_folder(run, Spec(), 1)
    kept = (model_folder(run, Spec(), 0) / "model.safetensors").stat().st_mtime_ns
    before = rows_of(run, Spec())
    (run.folder / "raw" / "default.parquet").unlink()
    (gone / "model.safetensors").unlink()
    (gone.parent / f".{gone.name}.recipe.json").unlink()
    again = rows_of(run, Spec())
    assert (model_folder(run, Spec(), 0) / "model.safetensors").stat().st_mtime_ns == kept
    assert list(again.key) == list(before.key)
    # Another number of threads adds up in another order, and bfloat16 keeps eight bits.
    assert np.abs(again.iou - before.iou).mean() < 0.02
    changed = [p for p, at in stamp.items() if p.stat().st_mtime_ns != at]
    assert [p.name for p in changed] == ["default.parquet"]


@pytest.mark.slow
def test_the_command_makes_every_study_and_a_second_time_nothing(tmp_path):
    def run() -> tuple[str, float]:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "ml.studies", "--quick", "--root", tmp_path],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout, time.perf_counter() - started

    said, first = run()
    assert all(f"{name}: finished" in said for name in STUDIES)
    folder = tmp_path / "data" / "paper-quick"
    html = (folder / "results.html").read_text()
    assert "not run yet" not in html and html.count("<table") > 15
    models = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    _, second = run()
    assert second < first / 3
    assert models == {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    assert (folder / "results.html").read_text() == html
