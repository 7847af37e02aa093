"""The stages on real photographs and without any benchmark: what is converted once, trained on,
scored, and what every page says of it."""

import dataclasses
import json
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from ml.datasets import open_source
from ml.datasets.photos import sample_keys
from ml.images.png import decode_png, encode_png
from ml.metrics.iou import confusion
from ml.pipeline.runner import run_stage
from ml.pipeline.stages import segmenter as segmenter_stage
from ml.pipeline.stages.benchmark_scores import (
    main_statistic,
    protocol_two,
    read_scores,
    statistics,
    write_scores,
)
from ml.pipeline.stages.real_bound import fit_into, picture_frames
from ml.pipeline.workspace import Workspace
from ml.segmenters import load_segmenter
from ml.segmenters.held_out import keep_apart
from ml.segmenters.prediction import predict
from ml.settings.params import Params
from ml.settings.profile import load_params
from ml.store.making import write_shards
from ml.store.manifest import Manifest, describe_files, read_manifest, write_manifest
from ml.store.schemas import BENCHMARK, SYNTHETIC
from ml.store.shards import read_shards
from ml.words.vocabulary import Vocabulary, load_vocabulary
from orchestration import expectations, summary
from orchestration.mlflow.model_card import model_card
from tests.builders import handmade
from tests.builders import phototrees as trees
from tests.builders.tiny import tiny_backbone

CAR, CAT, DOG = 1, 2, 3  # labels of the vocabulary below


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    return tiny_backbone(tmp_path_factory.mktemp("backbone"))


def settings(backbone, source: str, root=None, base: Params | None = None, **changes) -> Params:
    """A profile with a segmenter of one step and a benchmark of the given source."""
    base = base or load_params()
    segmenter = dataclasses.replace(
        base.segmenter, backbone=str(backbone), steps=1, batch_size=2, scale=1
    )
    benchmark = dataclasses.replace(
        base.benchmark,
        source=source,
        subset="any",
        bootstrap=20,
        root=None if root is None else str(root),
    )
    return dataclasses.replace(base, segmenter=segmenter, benchmark=benchmark, **changes)


def pets(folder) -> str:
    (folder / "pets.yaml").write_text("seen: [cat, dog]\nunseen: [car]\n")
    return str(folder / "pets.yaml")


def synthetic_folder(workspace: Workspace, count: int) -> None:
    """A finished `synthetic_dataset` of noise pictures, each with one box of a class."""
    folder = workspace.folder("synthetic_dataset")
    frame = pd.DataFrame(
        [
            {name: None for name in SYNTHETIC.names}
            | {
                "key": f"synthetic-{i:06d}",
                "entities": [("car", "cat", "dog")[i % 3]],
                "accepted": True,
                "image": encode_png(trees.noise(48, 64, 200 + i)),
                "label": encode_png(trees.boxes(48, 64, (1 + i % 3, 4, 4, 40, 40))),
            }
            for i in range(count)
        ]
    )
    rows = write_shards(folder, "recipe", [list(range(count))], lambda _: frame, SYNTHETIC)
    write_manifest(
        folder, Manifest("synthetic_dataset", 1, {}, {}, describe_files(folder, rows), {})
    )


def rules(stage: str, params: Params, workspace: Workspace) -> dict[str, expectations.Result]:
    return {
        result.name: result for result in expectations.validate(stage, params, workspace).results
    }


# VOC from its folder to a score

SCORED = ("segmenter", "real_bound", "benchmark_scores")


@pytest.fixture(scope="module")
def voc(backbone, tmp_path_factory):
    """Tiny VOC with SBD and four synthetic pictures, through the stages that read them."""
    root = tmp_path_factory.mktemp("voc")
    trees.write_voc(root / "sets")
    trees.write_sbd(root / "sets")
    # one training photograph is a picture of the test set under another name
    photos = root / "sets/VOCdevkit/VOC2012/JPEGImages"
    shutil.copyfile(photos / "2007_000061.jpg", photos / "2007_000032.jpg")
    params = settings(backbone, "voc2012", root / "sets", vocabulary=pets(root))
    workspace = Workspace(root, params.profile)
    reports = {"benchmark": run_stage("benchmark", params, root)}
    synthetic_folder(workspace, 4)
    reports |= {name: run_stage(name, params, root) for name in SCORED}
    return params, workspace, reports


def test_photographs_are_converted_once_into_the_benchmarks_shards(voc):
    params, workspace, reports = voc
    rows = read_shards(workspace.folder("benchmark"))
    assert list(rows.columns) == BENCHMARK.names and list(rows.key) == sorted(trees.VOC_VAL)
    photos = workspace.root / "sets/VOCdevkit/VOC2012/JPEGImages"
    for row in rows.itertuples():
        assert row.image == (photos / f"{row.key}.jpg").read_bytes()
    labels = dict(zip(rows.key, map(decode_png, rows.label), strict=True))
    assert np.array_equal(labels["2007_000042"], trees.boxes(60, 40, (DOG, 10, 10, 40, 30)))
    assert np.array_equal(
        labels["2007_000061"], trees.boxes(40, 60, (CAR, 20, 10, 38, 50), (255, 0, 0, 10, 10))
    )  # a person is not in the vocabulary
    facts = reports["benchmark"].facts
    assert facts["pictures"] == facts["listed"] == 3 and facts["official_pictures"] == 1449
    assert facts["pictures_by_class"] == {"car": 1, "cat": 1, "dog": 1}
    assert facts["labelled_classes"] == ["car", "cat", "dog"]
    assert facts["name"].startswith("a part of PASCAL VOC 2012 val (3 of 1449 pictures)")
    assert run_stage("benchmark", params, workspace.root).cached


def test_the_bound_trains_on_the_training_part_without_test_pictures(voc):
    _, workspace, reports = voc
    facts = reports["real_bound"].facts
    assert facts["listed"] == 4 and facts["left_out_as_benchmark_copies"] == 1
    assert facts["pictures"] == 3 and "trainaug" in facts["name"]
    assert facts["pictures_by_class"] == {"car": 1, "cat": 1, "dog": 1}
    inputs = read_manifest(workspace.folder("real_bound")).inputs
    assert inputs["benchmark.root"] != reports["benchmark"].digest
    assert set(inputs) == {"synthetic_dataset", "benchmark", "segmenter.backbone", "benchmark.root"}


def test_scores_of_pictures_of_two_sizes(voc):
    """Scored again, picture by picture, from the saved model."""
    params, workspace, reports = voc
    model = load_segmenter(workspace.folder("segmenter") / "model")
    keys, stack = read_scores(workspace.folder("benchmark_scores") / "scores.parquet")
    rows = read_shards(workspace.folder("benchmark"))
    assert keys == list(rows.key)
    for counts, row in zip(stack, rows.itertuples(), strict=True):
        image, label = decode_png(row.image), decode_png(row.label)
        assert np.array_equal(counts, confusion(predict(model, image[None])[0], label, 3))
    facts = reports["benchmark_scores"].facts
    again = protocol_two(stack, load_vocabulary(params.vocabulary), 20)
    assert facts["synthetic"] == again
    assert {"real_upper_bound", "label_cost"} < set(facts) and "held_out_synthetic" not in facts
    assert "not the official set" in facts["benchmark"] and facts["unscored_classes"] == []
    assert (workspace.folder("benchmark_scores") / "contact_sheet.jpg").is_file()


def test_checks_hold_on_photographs(voc):
    params, workspace, _ = voc
    found = rules("benchmark", params, workspace)
    assert all(result.passed for result in found.values()), found
    assert rules("real_bound", params, workspace)["weights_written"].passed
    assert set(rules("benchmark_scores", params, workspace)) == {
        "scores_in_range",
        "above_chance",
        "bound_above_chance",
    }


def test_a_class_that_is_gone_or_a_changed_picture_fails_the_checks(voc, tmp_path):
    params, made, _ = voc
    shutil.copytree(made.data, Workspace(tmp_path, params.profile).data)
    workspace = Workspace(tmp_path, params.profile)
    folder = workspace.folder("benchmark")
    manifest = read_manifest(folder)
    rows = read_shards(folder)
    rows = rows[rows.key != "2007_000042"].copy()  # the only dog
    rows.iloc[0, rows.columns.get_loc("image")] = encode_png(np.full((40, 60, 3), 90, np.uint8))
    write_shards(folder, "changed", [[0]], lambda _: rows, BENCHMARK)
    write_manifest(
        folder,
        dataclasses.replace(manifest, files=describe_files(folder, {"shard-00000.parquet": 2})),
    )
    found = rules("benchmark", params, workspace)
    failed = {name for name, result in found.items() if not result.passed}
    assert failed == {"row_count", "frozen", "not_blank", "every_class_present"}
    assert found["every_class_present"].examples == ["class dog, missing dog"]


def test_changed_data_makes_the_stage_again_and_moved_data_does_not(voc, tmp_path):
    params, made, _ = voc
    root = tmp_path
    shutil.copytree(made.root / "sets", root / "moved")
    shutil.copytree(made.data, Workspace(root, params.profile).data)
    moved = dataclasses.replace(
        params, benchmark=dataclasses.replace(params.benchmark, root="moved")
    )  # relative to the workspace
    assert run_stage("benchmark", moved, root).cached
    mask = root / "moved/VOCdevkit/VOC2012/SegmentationClass/2007_000042.png"
    trees.save_palette(mask, trees.boxes(60, 40, (trees.DOG, 0, 0, 60, 40)))
    again = run_stage("benchmark", moved, root)
    assert not again.cached
    label = decode_png(read_shards(Workspace(root, params.profile).folder("benchmark")).label[1])
    assert (label == DOG).all()


def test_the_official_benchmark_is_refused_before_any_work(voc, tmp_path):
    params, made, _ = voc
    params = dataclasses.replace(
        params, benchmark=dataclasses.replace(params.benchmark, subset="official")
    )
    with pytest.raises(ValueError, match="expected the official 1449 pictures, found 3"):
        run_stage("benchmark", params, tmp_path)
    assert not list(Workspace(tmp_path, params.profile).folder("benchmark").glob("shard*"))
    gone = dataclasses.replace(
        params, benchmark=dataclasses.replace(params.benchmark, root=str(tmp_path / "nowhere"))
    )
    with pytest.raises(ValueError, match="benchmark.root: no folder"):
        run_stage("benchmark", gone, tmp_path)


@pytest.mark.parametrize(
    "change, match",
    [
        (
            "{source: imagenet}",
            "benchmark.source: expected drawn, none, voc2012, coco2017 or folder",
        ),
        ("{source: voc2012}", "benchmark.root: expected the folder of the real pictures, got None"),
        ("{root: sets/voc}", "benchmark.root: expected null with benchmark.source drawn"),
        ("{subset: most}", "benchmark.subset: expected official or any"),
    ],
)
def test_settings_that_contradict_each_other(tmp_path, change, match):
    (tmp_path / "mine.yaml").write_text(f"benchmark: {change}\n")
    with pytest.raises(ValueError, match=match):
        load_params(str(tmp_path / "mine.yaml"))


def test_training_pictures_are_chosen_by_the_seed():
    keys = [f"{i:03d}" for i in range(50)]
    chosen = sample_keys(keys, 20, 0)
    assert len(set(chosen)) == 20 and chosen == sorted(chosen) == sample_keys(keys, 20, 0)
    assert chosen != sample_keys(keys, 20, 1) and sample_keys(keys, 80, 0) == keys


def test_a_photograph_fits_into_a_frame_in_its_proportions():
    image = np.full((30, 60, 3), 200, np.uint8)
    label = trees.boxes(30, 60, (1, 0, 0, 30, 30))
    framed, marked = fit_into(image, label, 40, 40)
    assert framed.shape == (40, 40, 3) and (framed[:20] == 200).all() and not framed[20:].any()
    assert (marked[:20, :20] == 1).all() and (marked[:20, 20:] == 0).all()
    assert (marked[20:] == 255).all()


# COCO and a user's folder


def test_coco_becomes_a_benchmark(backbone, tmp_path):
    trees.write_coco(tmp_path / "coco")
    params = settings(backbone, "coco2017", tmp_path / "coco", vocabulary=pets(tmp_path))
    report = run_stage("benchmark", params, tmp_path)
    rows = read_shards(Workspace(tmp_path, params.profile).folder("benchmark"))
    assert [list(names) for names in rows.entities] == [["car", "cat"], ["dog"], []]
    assert report.facts["one_object"] == report.facts["two_objects"] == 1


@pytest.fixture(scope="module")
def yard(backbone, tmp_path_factory):
    """A user's folder that labels the two new words and none of the seen classes."""
    root = tmp_path_factory.mktemp("yard")
    trees.write_folder(root / "yard")
    (root / "mine.yaml").write_text("seen: [cat]\nunseen: [forklift, hard hat]\n")
    params = settings(backbone, "folder", root / "yard", vocabulary=str(root / "mine.yaml"))
    workspace = Workspace(root, params.profile)
    reports = {"benchmark": run_stage("benchmark", params, root)}
    synthetic_folder(workspace, 3)
    reports |= {name: run_stage(name, params, root) for name in SCORED}
    return params, workspace, reports


def test_without_training_pictures_there_is_no_bound_and_it_is_said(yard):
    params, workspace, reports = yard
    assert reports["real_bound"].facts == {
        "model": False,
        "why": "the folder has no train.txt: nothing to train a real bound on",
    }
    assert set(read_manifest(workspace.folder("real_bound")).files) == {"metrics.json"}
    facts = reports["benchmark_scores"].facts
    assert "real_upper_bound" not in facts and "label_cost" not in facts
    assert all(r.passed for r in rules("real_bound", params, workspace).values())
    assert all(r.passed for r in rules("benchmark", params, workspace).values())


def test_classes_that_the_folder_does_not_label_are_not_scored(yard):
    _, workspace, reports = yard
    facts = reports["benchmark_scores"].facts
    assert facts["unscored_classes"] == ["cat"]
    assert "seen" not in facts["synthetic"] and "harmonic" not in facts["synthetic"]
    assert set(facts["synthetic"]["per_class"]) <= {"forklift", "hard hat"}
    _, stack = read_scores(workspace.folder("benchmark_scores") / "scores.parquet")
    assert not stack[:, 1].any() and not stack[:, :, 1].any()  # label 1 is cat
    model = load_segmenter(workspace.folder("segmenter") / "model")
    row = read_shards(workspace.folder("benchmark")).iloc[0]
    found = predict(model, decode_png(row.image)[None])[0]
    expected = confusion(np.where(found == 1, 0, found), decode_png(row.label), 3)
    assert np.array_equal(stack[0], expected)


def test_statistics_of_a_benchmark_that_labels_some_classes():
    """IoU 1/2 of a seen class, 1/4 of an unseen one, by hand."""
    words = Vocabulary("v", ("a", "b"), ("c",), {})
    counts = np.zeros((4, 4), np.int64)
    counts[1, 1], counts[1, 0] = 5, 5
    counts[3, 3], counts[3, 0] = 1, 3
    table = {name: float(f(counts)) for name, f in statistics(words).items()}
    assert table["seen"] == 50 and table["unseen"] == 25 and table["all"] == 37.5
    assert float(main_statistic(words)(counts)) == pytest.approx(2 * 50 * 25 / 75)
    assert set(statistics(words, ["a", "b"])) == {"background", "all", "unseen"}
    assert float(main_statistic(words, ["a", "b"])(counts)) == 25
    assert float(main_statistic(words, ["c"])(counts)) == 50


def test_confusions_of_80_classes_stay_small_on_disk(tmp_path):
    """5,000 pictures are 262 MB in memory; what is mostly zeros compresses."""
    rng, stack = np.random.default_rng(0), np.zeros((200, 81, 81), np.int64)
    for counts in stack:
        some = rng.choice(81, 4)
        counts[np.ix_(some, some)] = rng.integers(1, 90_000, (4, 4))
    keys = [f"{i:012d}" for i in range(200)]
    write_scores(tmp_path / "scores.parquet", keys, {"synthetic": stack})
    assert (tmp_path / "scores.parquet").stat().st_size < stack.nbytes / 50
    assert np.array_equal(read_scores(tmp_path / "scores.parquet")[1], stack)


# no benchmark at all


@pytest.fixture(scope="module")
def bare(backbone, tmp_path_factory):
    """A user's own words: the whole graph by hand, then the stages after it with source none."""
    root = tmp_path_factory.mktemp("bare")
    workspace = handmade.data_stages(root)
    base = handmade.params_of(workspace)
    params = settings(backbone, "none", base=base)
    reports = {"benchmark": run_stage("benchmark", params, root)}
    handmade.write_weights(workspace, "grounding_model")
    handmade.write_model(workspace, "grounding_model")
    handmade.write_synthetic(workspace)
    scores = workspace.folder("grounding_scores") / "scores.parquet"
    scores.parent.mkdir(parents=True)
    pd.DataFrame(
        {
            "key": ["a", "b"],
            "cell": "one_seen",
            "entity": "dog",
            "seen": True,
            "iou_ours": 0.8,
            "iou_daam": 0.1,
        }
    ).to_parquet(scores)
    handmade.write_stage("grounding_scores", workspace, handmade.grounding_facts())
    reports |= {name: run_stage(name, params, root) for name in (*SCORED, "promotion", "report")}
    return params, workspace, reports


def test_an_empty_benchmark_is_a_valid_one(bare):
    params, workspace, reports = bare
    assert len(read_shards(workspace.folder("benchmark"))) == 0
    assert reports["benchmark"].facts["pictures"] == 0
    for stage in ("benchmark", "real_bound", "synthetic_dataset"):
        found = rules(stage, params, workspace)
        assert all(result.passed for result in found.values()), (stage, found)


def test_scored_pictures_were_never_trained_on(bare):
    params, workspace, reports = bare
    accepted = segmenter_stage.accepted_rows(workspace)
    kept, held = keep_apart(accepted.key, params.seed)
    assert len(held) == 10 and len(kept) == 90 and not set(kept) & set(held)
    assert reports["segmenter"].facts["pictures"] == 90
    keys, stack = read_scores(workspace.folder("benchmark_scores") / "scores.parquet")
    assert keys == held and (stack.sum((1, 2)) == 64 * 64).all()
    with pytest.raises(ValueError, match="1 synthetic picture was accepted; expected two or more"):
        keep_apart(["a"], 0)


def test_nobody_takes_synthetic_scores_for_real_ones(bare, capsys):
    params, workspace, reports = bare
    facts = reports["benchmark_scores"].facts
    assert facts["held_out_synthetic"] is True and "real_upper_bound" not in facts
    verdict = reports["promotion"].facts["segmenter"]
    assert verdict["held_out_synthetic"] and "no real benchmark" in verdict["reason"]
    assert "held_out_synthetic" not in reports["promotion"].facts["grounding"]
    page = (workspace.folder("report") / "report.html").read_text()
    assert "There is no real benchmark" in page and "held-out synthetic pictures</h2>" in page
    assert "Protocol II: a segmenter" not in page and "real bound" not in page
    card = model_card(
        "segmenter",
        read_manifest(workspace.folder("segmenter")),
        read_manifest(workspace.folder("benchmark_scores")),
    )
    assert "**no real benchmark**" in card and "held_out_synthetic" not in card
    said = summary.summarize(workspace, {})
    assert set(said["segmentation"]) == {"synthetic", "benchmark", "held_out_synthetic"}
    assert "NO REAL BENCHMARK: segmenter on held-out synthetic pictures" in summary.page(
        said, None, workspace, False, {}
    )


def test_new_synthetic_pictures_are_another_test_set(bare, tmp_path):
    """A champion is never compared with scores on pictures of a later synthetic set."""
    params, made, _ = bare
    shutil.copytree(made.root, tmp_path, dirs_exist_ok=True)
    workspace = Workspace(tmp_path, made.profile)
    low = dataclasses.replace(
        params,
        promotion=dataclasses.replace(params.promotion, min_grounding=0.0, min_segmenter=0.0),
    )
    first = run_stage("promotion", low, tmp_path).facts["segmenter"]
    assert first["promote"] and first["champion"] is None
    handmade.write_synthetic(workspace, lambda rows: rows.iloc[:-1])
    for name in SCORED:
        run_stage(name, params, tmp_path)
    assert "another test set" in run_stage("promotion", low, tmp_path).facts["segmenter"]["reason"]


def test_a_real_benchmark_and_a_bound_are_named_on_every_page(voc):
    params, workspace, reports = voc
    said = json.loads((workspace.folder("benchmark_scores") / "metrics.json").read_text())
    card = model_card(
        "segmenter",
        read_manifest(workspace.folder("segmenter")),
        read_manifest(workspace.folder("benchmark_scores")),
    )
    assert f"Measured on: {said['benchmark']}." in card
    assert pq.read_table(workspace.folder("benchmark_scores") / "scores.parquet").num_rows == 6


def test_with_crops_photographs_keep_their_size(voc, tmp_path):
    params, made, _ = voc
    params = dataclasses.replace(
        params, segmenter=dataclasses.replace(params.segmenter, crop_size=32)
    )
    workspace = Workspace(tmp_path, params.profile)
    shutil.copytree(made.data, workspace.data)
    photos = open_source(params.benchmark, "train", params.benchmark.root)
    vocabulary = load_vocabulary(params.vocabulary)
    (frame,) = picture_frames(photos, photos.keys, vocabulary, workspace, one_size=False)
    assert [decode_png(data).shape[:2] for data in frame.image] == [(60, 40), (50, 40), (30, 70)]
    facts = run_stage("real_bound", params, tmp_path).facts
    assert facts["pictures"] == 3 and facts["left_out_as_benchmark_copies"] == 1
