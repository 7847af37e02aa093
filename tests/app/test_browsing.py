"""Sets by reason and class, a page at a time, and marks, on hand-made shards."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from ml.app.browsing import ACCEPTED, EVERY, PAGE, REJECTED, Sets
from ml.app.showing import browsed
from ml.errors import ManifestError
from ml.images.facts import picture_facts
from ml.images.png import decode_png, encode_png
from ml.images.run_lengths import encode_rle
from ml.pipeline.audited import verdicts_of
from ml.pipeline.marks import Mark, add_marks, picture_sha256, read_marks
from ml.pipeline.workspace import Workspace
from ml.store.manifest import Manifest, describe_files, write_manifest
from ml.store.schemas import IMAGES, SYNTHETIC, TRIPLETS
from ml.store.shards import read_frame, split, write_shard
from ml.words.vocabulary import load_vocabulary

VOC = load_vocabulary("voc-1")
CLASSES = ("dog", "tvmonitor")
PICTURES = 20


def picture(place: int) -> np.ndarray:
    return np.random.default_rng(place).integers(0, 255, (8, 10, 3), np.uint8)


def name_of(key: str) -> str:
    """The sha256 of the picture that the sets show under a key."""
    return picture_sha256(encode_png(picture(int(key[2:]))))


def half(place: int) -> np.ndarray:
    """Left for the first class, right for the second."""
    return np.arange(10)[None].repeat(8, 0) // 5 == place


def finish(workspace: Workspace, stage: str, rows: list[dict], schema) -> None:
    folder = workspace.folder(stage)
    folder.mkdir(parents=True)
    counts = {}
    for number, part in enumerate(split(rows, 7)):
        name = f"shard-{number:05d}.parquet"
        counts[name] = write_shard(folder / name, "recipe", pd.DataFrame(part), schema)
    files = describe_files(folder, counts)
    write_manifest(folder, Manifest(stage, 1, {"vocabulary_digest": VOC.digest}, {}, files, {}))


@pytest.fixture
def sets(tmp_path) -> Sets:
    workspace = Workspace(tmp_path, "yard")
    label = np.zeros((8, 10), np.uint8)
    for place, name in enumerate(CLASSES):
        label[half(place)] = VOC.label(name)
    prompts, triplets = [], []
    for place in range(PICTURES):
        image = picture(place)
        key = f"p-{place:03d}"
        prompts.append(
            {
                "key": key,
                "text": "a dog and a <tv monitor>",
                "entities": CLASSES,
                "words": ("dog", "tv monitor"),
                "phrases": ("a dog", "a tv monitor"),
                "seed": place,
                "purpose": "synthetic",
                "cell": "two_unseen",
                "image": encode_png(image),
                **picture_facts(image),
            }
        )
        for i, name in enumerate(CLASSES):
            reason = "no_mask" if place == 3 and not i else ""
            triplets.append(
                {
                    "key": key,
                    "text": prompts[-1]["text"],
                    "entity": name,
                    "word": prompts[-1]["words"][i],
                    "phrase": prompts[-1]["phrases"][i],
                    "purpose": "sim",
                    "cell": "two_unseen",
                    "subset": "sim",
                    "accepted": not reason,
                    "reason": reason,
                    "score": 0.9,
                    "area": 0.5,
                    "std": 9.0,
                    "dhash": "0" * 16,
                    "rle": "" if reason else encode_rle(half(i)),
                }
            )
    more = {"latent": b"", "latent_shape": [0], "timestep": 0, "daam": b"", "daam_shape": [0]}
    finish(workspace, "images", [own | more for own in prompts], IMAGES)
    finish(workspace, "triplets", triplets, TRIPLETS)
    judged = [
        own
        | {
            "label": encode_png(label),
            "rles": ["", ""],
            "areas": [0.5, 0.5],
            "ignored": 0.0,
            "accepted": place not in (1, 2),
            "reason": {1: "too uncertain", 2: "entity too small"}.get(place, ""),
            "benchmark_overlap": False,
        }
        for place, own in enumerate(prompts)
    ]
    finish(workspace, "synthetic_dataset", judged, SYNTHETIC)
    return Sets(workspace, VOC)


@pytest.mark.parametrize("stage", ["synthetic_dataset", "triplets"])
def test_pages_hold_every_mask_once_with_its_own_picture_and_mask(sets, stage):
    seen = []
    for number in range(1, 2 * PICTURES // PAGE + 2):
        page = sets.page(stage, EVERY, "", number)
        assert (page.page, page.total) == (number, 2 * PICTURES)
        for item in page.items:
            assert (item.picture == picture(int(item.key[2:]))).all()
            assert item.sha256 == picture_sha256(encode_png(item.picture))
            if item.mask is not None:
                assert (item.mask == half(CLASSES.index(item.entity))).all()
            seen.append((item.key, item.word))
    assert len(seen) == len(set(seen)) == 2 * PICTURES
    assert sets.page(stage, EVERY, "", 99).page == page.page


def test_rejected_masks_are_found_by_reason_and_class(sets):
    assert sets.reasons("synthetic_dataset") == {
        EVERY: "everything (40)",
        ACCEPTED: "accepted (36)",
        REJECTED: "all that was rejected (4)",
        "entity too small": "entity too small (2)",
        "too uncertain": "too uncertain (2)",
    }
    page = sets.page("synthetic_dataset", "too uncertain", "dog", 1)
    assert [(item.key, item.entity, item.reason) for item in page.items] == [
        ("p-001", "dog", "too uncertain")
    ]
    page = sets.page("triplets", REJECTED, "", 1)
    assert [(item.key, item.mask) for item in page.items] == [("p-003", None)]
    assert sets.classes("triplets") == sorted(CLASSES)


def test_a_mark_is_kept_shown_again_and_replaced_by_the_next(sets):
    name = name_of("p-005")
    assert sets.mark("triplets", "p-005", "tv monitor", name, "wrong mask") == 1
    assert sets.mark("triplets", "p-005", "tv monitor", name, "right") == 1
    assert sets.mark("synthetic_dataset", "p-005", "dog", name, "wrong object") == 1
    verdicts = {
        (item.key, item.word): item.verdict
        for number in (1, 2, 3, 4)
        for item in sets.page("triplets", EVERY, "", number).items
        if item.verdict
    }
    assert verdicts == {("p-005", "tv monitor"): "right"}
    marks = read_marks(sets.workspace)
    assert [(m.stage, m.key, m.word, m.verdict) for m in marks] == [
        ("triplets", "p-005", "tv monitor", "right"),
        ("synthetic_dataset", "p-005", "dog", "wrong object"),
    ]
    assert marks[0].sha256 == name


def test_a_verdict_on_a_picture_that_was_made_again_under_its_key_is_refused(sets):
    """The mark was kept for the new picture, which nobody had judged."""
    seen = sets.page("synthetic_dataset", EVERY, "", 1).items[0]
    folder = sets.workspace.folder("synthetic_dataset")
    first, *rest = sorted(folder.glob("shard-*.parquet"))
    rows = read_frame(first, SYNTHETIC.names)
    rows["image"] = [encode_png(255 - decode_png(image)) for image in rows.image]
    counts = {path.name: len(read_frame(path, ["key"])) for path in rest}
    counts[first.name] = write_shard(first, "again", rows, SYNTHETIC)
    again = Manifest("synthetic_dataset", 1, {"vocabulary_digest": VOC.digest}, {}, {}, {})
    write_manifest(folder, dataclasses.replace(again, files=describe_files(folder, counts)))
    told = f"{seen.key!r}.*{seen.sha256[:12]}.*made again since; load the page again"
    with pytest.raises(ValueError, match=told):
        sets.mark(seen.stage, seen.key, seen.word, seen.sha256, "wrong mask")
    assert not read_marks(sets.workspace)
    now = sets.page("synthetic_dataset", EVERY, "", 1).items[0]
    assert (now.key, now.word) == (seen.key, seen.word) and now.sha256 != seen.sha256
    assert sets.mark(now.stage, now.key, now.word, now.sha256, "right") == 1


def test_the_page_names_the_picture_that_a_verdict_is_about(sets):
    page = sets.page("triplets", EVERY, "", 1)
    judged = [item.sha256 for item in page.items if item.mask is not None]
    assert re.findall(r'<fieldset [^>]*data-sha256="(\w+)"', browsed(page)) == judged


def test_marks_are_shown_as_the_stages_heed_them(sets):
    """Of a word and its class the later one; none of the same picture under another key."""
    names = [picture_sha256(encode_png(picture(place))) for place in range(PICTURES)]
    said = [
        ("p-004", 4, "tv monitor", "wrong mask"),
        ("p-004", 4, "tvmonitor", "right"),
        ("p-006", 6, "tvmonitor", "right"),
        ("p-006", 6, "tv monitor", "wrong object"),
        ("p-008", 7, "dog", "wrong mask"),  # the picture of p-007
    ]
    marks = [Mark("triplets", names[at], key, word, verdict) for key, at, word, verdict in said]
    add_marks(sets.workspace, marks)
    shown = {
        (item.key, item.word): item.verdict
        for number in (1, 2, 3, 4)
        for item in sets.page("triplets", EVERY, "", number).items
    }
    assert {which: verdict for which, verdict in shown.items() if verdict} == {
        ("p-004", "tv monitor"): "right",
        ("p-006", "tv monitor"): "wrong object",
    }
    rows = sets.rows("triplets")
    heeded = verdicts_of(sets.workspace, marks, rows)
    assert shown == dict(zip(zip(rows.key, rows.word, strict=True), heeded, strict=True))


@pytest.mark.parametrize(
    ("stage", "key", "word", "verdict", "says"),
    [
        ("images", "p-005", "dog", "right", "expected one of"),
        ("triplets", "p-999", "dog", "right", "has no mask of 'dog'"),
        ("triplets", "p-005", "zebra", "right", "has no mask of 'zebra'"),
        ("triplets", "p-003", "dog", "right", "has no mask of 'dog'"),  # rejected: no_mask
        ("triplets", "p-005", "dog", "lovely", "verdict"),
    ],
)
def test_a_mark_about_nothing_is_refused_and_nothing_written(sets, stage, key, word, verdict, says):
    with pytest.raises(ValueError, match=says):
        sets.mark(stage, key, word, name_of(key), verdict)
    assert not read_marks(sets.workspace)


def test_a_set_that_is_not_finished_is_named_and_one_made_again_is_read_again(sets):
    folder = sets.workspace.folder("triplets")
    sets.rows("triplets")
    (folder / "manifest.json").unlink()
    with pytest.raises(ManifestError, match="no finished triplets.*make run PROFILE=yard"):
        sets.page("triplets", EVERY, "", 1)
    assert sets.stages() == ["synthetic_dataset"]
    for file in sorted(folder.glob("shard-*.parquet"))[1:]:
        file.unlink()
    write_manifest(folder, Manifest("triplets", 1, {}, {}, describe_files(folder, {}), {}))
    assert len(sets.rows("triplets")) == 7


def test_label_maps_in_another_vocabularys_numbers_are_not_shown_under_its_names(sets):
    """With a word more, the sheep's mask stood under "potted plant", and could be marked."""
    first, *rest = VOC.seen
    longer = Sets(sets.workspace, dataclasses.replace(VOC, seen=(first, "apple", *rest)))
    with pytest.raises(ValueError, match="not the one that 'synthetic_dataset' was made with"):
        longer.page("synthetic_dataset", EVERY, "", 1)
    with pytest.raises(ValueError, match="bring the old vocabulary back"):
        longer.mark("synthetic_dataset", "p-000", "dog", name_of("p-000"), "right")
    assert longer.page("triplets", EVERY, "", 1).total, "whose masks have no numbers"
