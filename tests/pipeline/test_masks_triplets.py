"""Stages `masks`, `triplets` and `benchmark`, on drawn scenes whose true masks are known."""

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ml.datasets.drawn import label_table
from ml.detectors import Detector, Instances
from ml.detectors.maskrcnn import build_maskrcnn, save_maskrcnn
from ml.detectors.maskrcnn_config import MaskRCNNConfig
from ml.drawn_world.benchmark import benchmark_classes, benchmark_scenes
from ml.drawn_world.world import CLASSES, draw_scene, scene_seed
from ml.images.facts import picture_facts, pixel_digest
from ml.images.png import decode_png, encode_png
from ml.images.run_lengths import decode_rle
from ml.pipeline.runner import run_stage
from ml.pipeline.stages import masks as masks_stage
from ml.pipeline.stages.masks import classes_by_role, mask_rows
from ml.pipeline.stages.triplets import REASONS, join, judge, subset_of
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.settings.sections import DetectorParams, TripletParams
from ml.store.making import write_shards
from ml.store.manifest import Manifest, describe_files, write_manifest
from ml.store.schemas import IMAGES
from ml.store.shards import read_shards, split
from ml.store.sidecars import shard_files
from ml.words.cells import cell_of
from ml.words.english import with_article
from ml.words.vocabulary import Vocabulary, load_vocabulary

VOC = load_vocabulary("voc-1")
RULES = TripletParams(
    min_score=0.5, min_area=0.01, max_area=0.7, min_std=4.0, duplicate_bits=2, validation_share=0.2
)


class TrueMasks(Detector):
    """Knows the drawn scenes' exact masks by their pixels: independent truth for the stages."""

    def __init__(self, scenes, names=CLASSES):
        super().__init__(names, score_threshold=0.3, batch_size=4)
        self.truth = {pixel_digest(scene.image): scene for scene in scenes}
        self.asked = []

    def detect(self, images, classes=None):
        self.asked.append(tuple(classes))
        return super().detect(images, classes)

    def predict(self, images):
        answers = []
        for image in images:
            scene = self.truth[pixel_digest(image)]
            n = len(scene.classes)
            answers.append(
                (
                    scene.masks,
                    np.full(n, 0.9, np.float32),
                    list(scene.classes),
                    np.zeros((n, 4), np.float32),
                )
            )
        return answers


def image_row(key, scene, entities, purpose, image=None):
    image = scene.image if image is None else image
    words = [VOC.words[entity][0] for entity in entities]
    return {
        "key": key,
        "text": "a photograph of " + " and ".join(map(with_article, words)),
        "entities": list(entities),
        "words": words,
        "phrases": [with_article(w) for w in words],
        "seed": int(key.split("-")[1]),
        "purpose": purpose,
        "cell": cell_of(entities, VOC.unseen),
        "image": encode_png(image),
        "latent": b"",
        "latent_shape": [0],
        "timestep": 0,
        "daam": b"",
        "daam_shape": [0],
        **picture_facts(image),
    }


def write_images(root: Path, rows: list[dict], size: int = 8) -> None:
    """A finished `images` folder, as that stage would leave it."""
    folder = Workspace(root, "micro").folder("images")
    counts = write_shards(folder, "made by a test", split(rows, size), pd.DataFrame, IMAGES)
    write_manifest(folder, Manifest("images", 1, {}, {}, describe_files(folder, counts), {}))


def settings(**changes):
    return dataclasses.replace(load_params(), triplets=RULES, **changes)


@pytest.fixture(scope="module")
def drawn():
    """12 training scenes of seen classes, 8 sim scenes of any; half of each with two objects."""
    seen, every = VOC.seen, VOC.classes
    plan = [("train", (seen[i],)) for i in range(6)]
    plan += [("train", (seen[i], seen[i + 1])) for i in range(6)]
    plan += [("sim", (every[3 * i],)) for i in range(4)]
    plan += [("sim", (VOC.unseen[i], VOC.unseen[i + 1])) for i in range(4)]
    scenes = [
        draw_scene(scene_seed("test", 5000 + i), classes=names) for i, (_, names) in enumerate(plan)
    ]
    rows = [
        image_row(f"{purpose}-{i:06d}", scene, scene.classes, purpose)
        for i, ((purpose, _), scene) in enumerate(zip(plan, scenes, strict=True))
    ]
    return scenes, rows


@pytest.fixture
def true_detector(drawn, monkeypatch):
    detector = TrueMasks(drawn[0])
    monkeypatch.setattr(masks_stage, "load_detector", lambda *a, **k: detector)
    return detector


# masks


def test_masks_stage_writes_the_true_masks_shard_by_shard(tmp_path, drawn, true_detector):
    scenes, rows = drawn
    write_images(tmp_path, rows)
    report = run_stage("masks", settings(), tmp_path)
    folder = tmp_path / "data" / "micro" / "masks"
    masks = read_shards(folder)
    named = [(row["key"], entity) for row in rows for entity in row["entities"]]
    assert list(zip(masks.key, masks.entity, strict=True)) == named
    assert [p.name for p in shard_files(folder)] == [f"shard-0000{i}.parquet" for i in range(3)]
    truth = [mask for scene in scenes for mask in scene.masks]
    for row, mask in zip(masks.itertuples(), truth, strict=True):
        assert np.array_equal(decode_rle(row.rle), mask)
        assert row.area == mask.mean() and row.instances == 1 and row.found
        assert mask[int(row.y0) : int(row.y1), int(row.x0) : int(row.x1)].sum() == mask.sum()
        for side in (
            mask[int(row.y0)],
            mask[int(row.y1) - 1],
            mask[:, int(row.x0)],
            mask[:, int(row.x1) - 1],
        ):
            assert side.any()  # the box is tight on all four sides
    roles = {"train": "labeller", "sim": "oracle"}
    assert list(masks.role) == [roles[purpose] for purpose in masks.purpose]
    assert report.facts["roles"]["labeller"]["found"] == 1.0
    assert report.facts["pictures"] == 20 and report.facts["unknown_to_oracle"] == []
    assert (folder / "contact_sheet.jpg").stat().st_size <= 100_000


def test_the_labeller_is_never_asked_for_an_unseen_class(tmp_path, drawn, true_detector):
    write_images(tmp_path, drawn[1])
    run_stage("masks", settings(), tmp_path)
    assert set(true_detector.asked) == {VOC.seen, VOC.classes}
    only_train = [row for row in drawn[1] if row["purpose"] == "train"]
    true_detector.asked.clear()
    write_images(tmp_path / "b", only_train)
    run_stage("masks", settings(), tmp_path / "b")
    assert set(true_detector.asked) == {VOC.seen}


@pytest.mark.parametrize(
    "change, match",
    [
        ({"purpose": "train"}, "training picture sim-000016 names .*does not list as seen"),
        (
            {"purpose": "synthetic"},
            r"purposes \['synthetic'\], expected some of \['sim', 'train'\]",
        ),
    ],
)
def test_masks_stage_refuses_wrong_pictures(tmp_path, drawn, true_detector, change, match):
    row = next(row for row in drawn[1] if row["cell"] == "two_unseen")
    write_images(tmp_path, [row | change])
    with pytest.raises(ValueError, match=match):
        run_stage("masks", settings(), tmp_path)


def test_an_unseen_class_that_no_detector_knows_is_not_looked_for():
    vocabulary = Vocabulary("u", ("cat", "dog"), ("unicorn",), {})
    asked = classes_by_role(vocabulary, TrueMasks([]))
    assert asked == {"labeller": ("cat", "dog"), "oracle": ("cat", "dog")}
    with pytest.raises(ValueError, match="does not know the class 'dog'"):
        classes_by_role(vocabulary, TrueMasks([], names=["cat"]))


def test_facts_leave_out_what_nobody_could_look_for(tmp_path, drawn, true_detector):
    """A user's own words, which no COCO detector knows: their empty rows are kept, but a found
    share of them would read as a bad detector."""
    true_detector.known = tuple(sorted(VOC.seen))
    write_images(tmp_path, drawn[1])
    report = run_stage("masks", settings(), tmp_path)
    masks = read_shards(tmp_path / "data" / "micro" / "masks")
    unseen = masks.entity.isin(VOC.unseen)
    assert unseen.sum() >= 8 and not masks.found[unseen].any() and masks.found[~unseen].all()
    assert report.facts["unknown_to_oracle"] == sorted(VOC.unseen)
    assert report.facts["roles"]["oracle"]["found"] == 1.0
    assert report.facts["roles"]["oracle"]["rows"] == ((masks.role == "oracle") & ~unseen).sum()
    assert not set(report.facts["classes"]["oracle"]) & set(VOC.unseen)
    assert report.facts["rows"] == len(masks)
    only_unseen = [row for row in drawn[1] if row["cell"] == "two_unseen"]
    write_images(tmp_path / "b", only_unseen)
    facts = run_stage("masks", settings(), tmp_path / "b").facts
    assert facts["rows"] == 2 * len(only_unseen) and facts["roles"] == {}


class ManyLarge(Detector):
    """Finds forty horses in every picture, each over a row of its own."""

    def predict(self, images):
        masks = np.zeros((40, *images[0].shape[:2]), bool)
        masks[range(40), range(40)] = True
        return [(masks.copy(), np.full(40, 0.9), ["horse"] * 40, np.zeros((40, 4))) for _ in images]


def test_memory_follows_the_batch_and_not_the_shard(tmp_path, drawn, monkeypatch):
    """At 1024 pixels forty masks are 42 MB a picture: a shard of 24 would hold 1 GB of them."""
    scene = drawn[0][0]
    large = np.zeros((1024, 1024, 3), np.uint8)
    large[:512] = 200
    row = image_row("train-000000", scene, ("horse",), "train", large)
    rows = [row | {"key": f"train-{i:06d}"} for i in range(24)]
    write_images(tmp_path, rows, size=24)
    detector = ManyLarge(VOC.seen, score_threshold=0.3, batch_size=2)
    monkeypatch.setattr(masks_stage, "load_detector", lambda *a, **k: detector)
    tracemalloc.start()
    run_stage("masks", settings(), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    masks = read_shards(tmp_path / "data" / "micro" / "masks")
    assert (masks.instances == 40).all() and decode_rle(masks.rle[23]).sum() == 40 * 1024
    # Two pictures' masks, twice while they are sorted by score, and as much again of the rest.
    assert peak < 400e6


def test_detector_settings_reach_the_backend(tmp_path, drawn, monkeypatch):
    asked = {}

    def note(backend, path, **others):
        asked.update(others, backend=backend, path=path)
        return TrueMasks(drawn[0])

    (tmp_path / "r50.pkl").write_bytes(b"")
    monkeypatch.setattr(masks_stage, "load_detector", note)
    detector = DetectorParams(
        "detectron2", "COCO-InstanceSegmentation/x.yaml", "abc", "r50.pkl", 0.5, 3
    )
    write_images(tmp_path, drawn[1][:1])
    run_stage("masks", settings(detector=detector), tmp_path)
    assert asked == {
        "backend": "detectron2",
        "path": "COCO-InstanceSegmentation/x.yaml",
        "revision": "abc",
        "weights": str(tmp_path / "r50.pkl"),
        "score_threshold": 0.5,
        "device": "auto",
        "batch_size": 3,
    }
    (tmp_path / "r50.pkl").write_bytes(b"another")
    assert not run_stage("masks", settings(detector=detector), tmp_path).cached


def test_instances_of_a_class_are_merged_and_a_missing_one_is_an_empty_row():
    masks = np.zeros((3, 4, 4), bool)
    masks[0, 0, 0] = masks[1, 3, 2] = masks[2, 1, 1] = True
    found = Instances(
        masks,
        np.array([0.8, 0.6, 0.7], np.float32),
        ("cat", "cat", "bus"),
        np.zeros((3, 4), np.float32),
    )
    prompt = pd.Series(
        {
            "key": "sim-000000",
            "entities": ["cat", "dog"],
            "words": ["cat", "dog"],
            "purpose": "sim",
            "cell": "two_mixed",
        }
    )
    cat, dog = mask_rows(prompt, found, "oracle", (4, 4))
    assert decode_rle(cat["rle"]).sum() == 2 and cat["area"] == 2 / 16 and cat["instances"] == 2
    assert cat["score"] == pytest.approx(0.8)
    assert [cat[side] for side in ("x0", "y0", "x1", "y1")] == [0, 0, 3, 4]
    assert dog["found"] is False and dog["rle"] == "" and dog["score"] == 0 == dog["area"]
    with pytest.raises(ValueError, match="picture's own pixels"):
        mask_rows(prompt, found, "oracle", (8, 8))


def test_masks_stage_runs_a_mask_rcnn_from_its_folder(tmp_path, drawn):
    """Random weights: what it finds means nothing, but every row obeys the schema."""
    save_maskrcnn(
        build_maskrcnn(config := MaskRCNNConfig(classes=CLASSES)), config, tmp_path / "detector"
    )
    params = load_params()
    detector = dataclasses.replace(params.detector, model="detector", score_threshold=0.0)
    write_images(tmp_path, drawn[1][::4])
    run_stage("masks", settings(detector=detector), tmp_path)
    masks = read_shards(tmp_path / "data" / "micro" / "masks")
    assert len(masks) == sum(len(row["entities"]) for row in drawn[1][::4])
    assert masks.score.between(0, 1).all() and ((masks.rle != "") == masks.found).all()
    assert all(decode_rle(rle).shape == (64, 64) for rle in masks.rle[masks.found])


@pytest.mark.skipif(
    not (ROOT / "data/foundation/micro/detector/config.json").is_file(),
    reason="the trained detector is not in this checkout",
)
def test_the_trained_detector_finds_the_drawn_objects(tmp_path, drawn):
    """On fresh scenes its masks must overlap the true ones: 0.6 is far below its measured IoU."""
    scenes, rows = drawn
    write_images(tmp_path, rows)
    run_stage("masks", settings(), tmp_path)
    masks = read_shards(tmp_path / "data" / "micro" / "masks")
    truth = [mask for scene in scenes for mask in scene.masks]
    overlaps = []
    for rle, mask in zip(masks.rle, truth, strict=True):
        found = decode_rle(rle) if rle else np.zeros_like(mask)
        overlaps.append((found & mask).sum() / (found | mask).sum())
    assert np.mean(overlaps) > 0.6 and masks.found.mean() > 0.8


# triplets


def verdicts(*rows) -> list[str]:
    """Reasons for rows (key, purpose, std, found, score, area)."""
    frame = pd.DataFrame(rows, columns=["key", "purpose", "std", "found", "score", "area"])
    return list(judge(frame, {"twin": "t"}, RULES))


@pytest.mark.parametrize(
    "row, reason",
    [
        (("a", "train", 40.0, True, 0.9, 0.2), ""),
        (("a", "train", 3.9, True, 0.9, 0.2), "blank_picture"),
        (("twin", "train", 40.0, True, 0.9, 0.2), "repeated_picture"),
        (("a", "train", 40.0, False, 0.0, 0.0), "no_mask"),
        (("a", "train", 40.0, True, 0.49, 0.2), "low_score"),
        (("a", "train", 40.0, True, 0.5, 0.01), ""),  # both bounds belong to the accepted
        (("a", "train", 40.0, True, 0.9, 0.009), "too_small"),
        (("a", "train", 40.0, True, 0.9, 0.7), ""),
        (("a", "train", 40.0, True, 0.9, 0.71), "too_large"),
        (("twin", "train", 3.0, False, 0.0, 0.0), "blank_picture"),  # the first rule that holds
        (("a", "train", 40.0, True, 0.3, 0.9), "low_score"),
    ],
)
def test_rules_one_by_one(row, reason):
    assert verdicts(row) == [reason]


def test_a_training_picture_keeps_what_was_found_and_a_sim_picture_does_not():
    good, lost = (40.0, True, 0.9, 0.2), (40.0, False, 0.0, 0.0)
    assert verdicts(("t", "train", *good), ("t", "train", *lost)) == ["", "no_mask"]
    assert verdicts(("s", "sim", *good), ("s", "sim", *lost)) == ["entity_missing", "no_mask"]
    assert verdicts(("s", "sim", *good), ("r", "sim", *lost)) == ["", "no_mask"]
    assert verdicts(("s", "sim", *good), ("s", "sim", 40.0, True, 0.2, 0.2)) == [
        "entity_missing",
        "low_score",
    ]


def test_subset_is_a_share_of_pictures_and_never_of_sim():
    subsets = [subset_of(f"train-{i:06d}", "train", 0.2) for i in range(5000)]
    assert abs(subsets.count("validation") / 5000 - 0.2) < 0.02  # 3.5 standard deviations
    assert subset_of("train-000007", "train", 0.2) == subsets[7]
    assert subset_of("sim-000001", "sim", 0.2) == "sim"


def test_triplets_stage_end_to_end(tmp_path, drawn, true_detector):
    scenes, rows = drawn
    blank = image_row(
        "train-000100", scenes[0], ("bird",), "train", np.full((64, 64, 3), 9, np.uint8)
    )
    twin = image_row("train-000101", scenes[0], scenes[0].classes, "train")
    # asks for a bus and a horse, shows a horse and a person
    extra = draw_scene(scene_seed("test", 7000), classes=["horse", "person"])
    true_detector.truth[pixel_digest(extra.image)] = extra
    lost = image_row("train-000102", extra, ("bus", "horse"), "train")
    true_detector.truth[pixel_digest(decode_png(blank["image"]))] = scenes[0]
    write_images(tmp_path, [*rows[:12], blank, twin, lost, *rows[12:]])
    run_stage("masks", settings(), tmp_path)
    report = run_stage("triplets", settings(), tmp_path)
    folder = tmp_path / "data" / "micro" / "triplets"
    triplets = read_shards(folder)
    reason = triplets.set_index(["key", "entity"]).reason
    assert reason["train-000100", "bird"] == "blank_picture"
    assert set(reason["train-000101"]) == {"repeated_picture"}
    assert reason["train-000102", "bus"] == "no_mask" and reason["train-000102", "horse"] == ""
    areas = {
        (row["key"], name): mask.mean()
        for row, scene in zip(rows, scenes, strict=True)
        for name, mask in zip(scene.classes, scene.masks, strict=True)
    }
    for pair, area in areas.items():
        if area >= RULES.min_area and pair[0].startswith("train"):
            assert reason[pair] == ""
    assert (triplets.accepted == (triplets.reason == "")).all()
    assert set(triplets.reason) - {""} <= set(REASONS)
    assert not set(triplets.entity[triplets.purpose == "train"]) & set(VOC.unseen)
    assert triplets.groupby("key").subset.nunique().max() == 1
    phrases = triplets.set_index(["key", "entity"]).phrase
    assert phrases["train-000102", "bus"] == "a bus"
    facts = report.facts
    assert facts["rows"] == len(triplets) and facts["accepted"] == triplets.accepted.sum()
    assert facts["rejected"]["blank_picture"] == 1 and facts["rejected"]["no_mask"] == 1
    assert facts["rejected_by_class"]["no_mask"] == {"bus": 1}
    assert sum(facts["rejected"].values()) == facts["rows"] - facts["accepted"]
    assert set(facts["subsets"]) == {"train", "validation", "sim"}
    for name in ("contact_sheet.jpg", "rejected.jpg"):
        with Image.open(folder / name) as sheet:
            assert sheet.format == "JPEG"


@pytest.mark.parametrize(
    "spoil, match",
    [
        (lambda m: m.iloc[1:], "one mask row for each"),
        (lambda m: pd.concat([m, m.iloc[:1]]), "one mask row for each"),
        (lambda m: m.assign(key="sim-999999"), "one mask row for each"),
    ],
)
def test_masks_of_other_pictures_are_refused(drawn, spoil, match):
    pictures = pd.DataFrame(drawn[1])
    masks = pictures[["key", "entities"]].explode("entities").rename(columns={"entities": "entity"})
    assert len(join(pictures, masks)) == len(masks)
    with pytest.raises(ValueError, match=match):
        join(pictures, spoil(masks))
    with pytest.raises(ValueError, match="occurs more than once"):
        join(pd.concat([pictures, pictures.iloc[:1]]), masks)


# benchmark


@pytest.fixture(scope="module")
def scenes400():
    return list(benchmark_scenes())


def test_benchmark_stage_writes_every_scene_in_the_vocabularys_labels(tmp_path, scenes400):
    report = run_stage("benchmark", load_params(), tmp_path)
    folder = tmp_path / "data" / "micro" / "benchmark"
    frame = read_shards(folder)
    assert len(frame) == len(scenes400) == 400
    for i in range(0, 400, 7):
        image, label = decode_png(frame.image[i]), decode_png(frame.label[i])
        assert np.array_equal(image, scenes400[i].image)
        assert list(frame.entities[i]) == list(scenes400[i].classes)
        assert set(frame.entities[i]) == set(benchmark_classes(i))
        for name, mask in zip(scenes400[i].classes, scenes400[i].masks, strict=True):
            assert (label[mask] == VOC.label(name)).all()
        assert (label == 0).sum() == (~scenes400[i].masks.any(0)).sum()
    assert report.facts["one_object"] == report.facts["two_objects"] == 200
    assert report.facts["pictures_by_class"] == {name: 30 for name in VOC.classes}
    assert report.facts["ignored_share"] == 0
    assert (folder / "contact_sheet.jpg").stat().st_size <= 100_000


def test_benchmark_ignores_drawn_classes_that_the_vocabulary_lacks(tmp_path, scenes400):
    (tmp_path / "pets.yaml").write_text("seen: [cat, zebra]\nunseen: [dog]\n")
    params = dataclasses.replace(load_params(), vocabulary=str(tmp_path / "pets.yaml"))
    report = run_stage("benchmark", params, tmp_path)
    frame = read_shards(tmp_path / "data" / "micro" / "benchmark")
    pets = load_vocabulary(params.vocabulary)
    for i in (7, 11, 230, 333):  # 7 is a cat, 11 a dog
        label = decode_png(frame.label[i])
        for name, mask in zip(scenes400[i].classes, scenes400[i].masks, strict=True):
            expected = pets.label(name) if name in ("cat", "dog") else 255
            assert (label[mask] == expected).all()
    assert report.facts["pictures_by_class"] == {"cat": 30, "dog": 30, "zebra": 0}
    assert report.facts["classes_without_pictures"] == 1 and report.facts["ignored_share"] > 0.05


def test_benchmark_refuses_a_vocabulary_without_any_of_its_classes():
    with pytest.raises(ValueError, match="lists none of the benchmark's classes: expected some of"):
        label_table(Vocabulary("zoo", ("zebra",), ("lion",), {}))
