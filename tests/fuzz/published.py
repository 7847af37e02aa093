"""COCO's annotations, as half downloads, other tools and hands leave them; and VOC's trees."""

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.builders import phototrees as trees
from tests.fuzz import voc
from tests.fuzz.harness import Case
from tests.fuzz.parts import benchmark_of, labels

ANNOTATIONS = "coco/annotations/instances_val2017.json"
Edit = Callable[[dict, random.Random], object]


def cases(rng: random.Random) -> Iterator[Case]:
    while True:
        every = [
            _coco(name, edit, False, rng.randrange(10**6), *names)
            for name, (edit, *names) in NONSENSE.items()
        ]
        every += [_coco(name, edit, True, rng.randrange(10**6)) for name, edit in SOUND.items()]
        every += [_coco_file(name, edit, *names) for name, (edit, *names) in FILES.items()]
        every += [_coco_field(rng) for _ in range(25)]
        every += voc.cases(rng)
        yield from rng.sample(every, len(every))


def _coco(name: str, edit: Edit, sound: bool, seed: int, *names: str) -> Case:
    def prepare(folder: Path) -> list[str]:
        values = trees.write_coco(folder / "coco")
        edit(values, random.Random(seed))
        (folder / ANNOTATIONS).write_text(json.dumps(values))
        return benchmark_of(folder, "coco2017", "coco", ["car", "cat", "dog", "person"])

    return Case(
        "published",
        f"COCO {name} ({seed})",
        sound,
        prepare,
        names=names or ("instances_val2017.json",),
        check=_coco_truth,
    )


def _coco_truth(folder: Path, _) -> str | None:
    """In the vocabulary's labels: bus 1, car 2, cat 3, dog 4, person 5; a zebra is ignored."""
    table = np.zeros(256, np.uint8)
    table[[3, 17, 18, 1, 24, 255]] = 2, 3, 4, 5, 255, 255
    made = labels(folder)
    return next(
        (
            f"{key} has other labels"
            for key, label in trees.COCO_TRUTH.items()
            if not np.array_equal(made[key], table[label])
        ),
        None,
    )


def _annotation(change: Callable[[dict], object], place: int = 0) -> Edit:
    return lambda values, rng: change(values["annotations"][place])


def _image(change: Callable[[dict], object], place: int = 0) -> Edit:
    return lambda values, rng: change(values["images"][place])


def _shape(value: object, place: int = 0) -> Edit:
    return _annotation(lambda one: one.update(segmentation=value), place)


ODD = (None, "7", -1, 1.5, [], {}, True, float("nan"), 10**40, "", [1], {"a": 1}, [[]], 999_999)


def _coco_field(rng) -> Case:
    """A field that labels come from, with a value that is none."""
    part, field = rng.choice(
        (
            ("annotations", "id"),
            ("annotations", "image_id"),
            ("annotations", "category_id"),
            ("annotations", "segmentation"),
            ("annotations", "iscrowd"),
            ("images", "id"),
            ("images", "height"),
            ("images", "width"),
            ("images", "file_name"),
            ("categories", "id"),
            ("categories", "name"),
        )
    )
    fits = {
        "id": (999_999, 10**40),
        "height": (999_999,),
        "width": (999_999,),
        "file_name": ("7",),
        "segmentation": (),
        "name": (),
    }
    # True is 1, and a crowd of a polygon is one in COCO's own files, too
    values = [
        v for v in ODD if v not in fits.get(field, ()) and not (field == "iscrowd" and v is True)
    ]
    value, place = rng.choice(values), rng.randrange(3)
    if part == "images" and field == "file_name":
        value = rng.choice(
            [
                *(v for v in values if not isinstance(v, str)),
                "",
                "../../x.jpg",
                "/etc/passwd",
                "C:\\x.jpg",
                "a\0b.jpg",
                "gone.jpg",
            ]
        )
    names = () if value != "gone.jpg" else ("gone.jpg",)

    def edit(values, _) -> None:
        values[part][place][field] = value

    return _coco(f"{part}[{place}].{field} = {value!r:.30}", edit, False, 0, *names)


NONSENSE: dict[str, tuple] = {
    "no objects": (_shape([]), "annotation 1"),
    "null": (_shape(None), "annotation 1"),
    "flat": (_shape([1, 2, 3, 4, 5, 6]), "annotation 1"),
    "two points": (_shape([[1, 2, 3, 4]]), "annotation 1"),
    "odd": (_shape([[1, 2, 3, 4, 5, 6, 7]]), "annotation 1"),
    "text": (_shape([["1", "2", "3", "4", "5", "6"]]), "annotation 1"),
    "pairs": (_shape([[[1, 2], [3, 4], [5, 6]]]), "annotation 1"),
    "far": (_shape([[1e9, 1, 1e9, 5, 3e9, 7]]), "annotation 1"),
    "fractions": (
        lambda values, _: [
            one.update(segmentation=[[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]])
            for one in values["annotations"]
        ],
        "fractions",
    ),
    "run lengths of another size": (_shape({"size": [60, 40], "counts": [2400]}), "annotation 1"),
    "run lengths too short": (_shape({"size": [40, 60], "counts": [5, 5]}), "annotation 1"),
    "run lengths below 0": (_shape({"size": [40, 60], "counts": [-5, 2405]}), "annotation 1"),
    "run lengths in fractions": (
        _shape({"size": [40, 60], "counts": [0.5, 2399.5]}),
        "annotation 1",
    ),
    "run lengths as garbage": (_shape({"size": [40, 60], "counts": "ÿÿ~~"}), "annotation 1"),
    "run lengths as nothing": (_shape({"size": [40, 60], "counts": ""}), "annotation 1"),
    "run lengths without end": (_shape({"size": [40, 60], "counts": "o" * 500}), "annotation 1"),
    "bytes": (_shape({"size": [40, 60], "counts": {"py/b64": "AA=="}}), "annotation 1"),
    "twice the image": (
        lambda values, _: values["images"].append(copy.deepcopy(values["images"][0])),
        "twice",
    ),
    "twice the object": (
        lambda values, _: values["annotations"].append(copy.deepcopy(values["annotations"][0])),
        "twice",
    ),
    "two of one file": (_image(lambda one: one.update(file_name="000000000139.jpg"), 1), "139"),
    "another size": (_image(lambda one: one.update(height=41), 2), "pixels"),
    "its sizes exchanged": (_image(lambda one: one.update(height=60, width=40)), "pixels"),
    "a huge size": (_image(lambda one: one.update(height=10**6, width=10**6)), "image 139"),
    "a category more": (
        lambda values, _: values["categories"].append({"id": 91, "name": "forklift"}),
        "categories",
    ),
    "a category less": (lambda values, _: values["categories"].pop(), "categories"),
    "categories renamed": (lambda values, _: values["categories"][0].update(name="human"), "human"),
    "ids of texts": (
        lambda values, _: [one.update(id=str(one["id"])) for one in values["images"]],
        "id",
    ),
    "objects of no image": (_annotation(lambda one: one.update(image_id=7)), "annotation 1"),
    "objects of no category": (_annotation(lambda one: one.update(category_id=12)), "annotation 1"),
    "no objects of the words": (
        lambda values, _: values.update(
            annotations=[one for one in values["annotations"] if one["category_id"] == 24]
        ),
        "zebra",
    ),
    "crowds alone": (
        lambda values, _: [one.update(iscrowd=1) for one in values["annotations"]],
        "crowd",
    ),
    "no images": (lambda values, _: values.update(images=[], annotations=[]), "no picture"),
    "captions": (
        lambda values, _: values.update(
            annotations=[{"id": 1, "image_id": 139, "caption": "a cat"}]
        ),
        "annotation 1",
    ),
    "an object that is a list": (
        lambda values, _: values["annotations"].append([]),
        "annotations[5]",
    ),
}


def _shuffled(values, rng) -> None:
    for part in ("images", "annotations", "categories"):
        rng.shuffle(values[part])


SOUND: dict[str, Edit] = {
    "plain": lambda values, rng: None,
    "shuffled": _shuffled,
    "without area and box": lambda values, _: [
        (one.pop("area"), one.pop("bbox")) for one in values["annotations"]
    ],
    "odd area": _annotation(lambda one: one.update(area="many", bbox=None)),
    "without info": lambda values, _: (values.pop("info"), values.pop("licenses")),
    "more fields": _annotation(lambda one: one.update(attributes={"occluded": True})),
    "no iscrowd": _annotation(lambda one: one.pop("iscrowd")),
    "a point beside": _annotation(lambda one: one["segmentation"].append([3, 3, 4, 4])),
    "run lengths": _shape(trees.runs(trees.boxes(40, 60, (1, 10, 10, 20, 20)).astype(bool))),
    "in two": _shape([*trees.rectangle(10, 10, 20, 15), *trees.rectangle(10, 15, 20, 20)]),
    "to the edge": _shape(trees.rectangle(5, 5, 35, 40), 1),
}


def _coco_file(name: str, edit: Callable[[Path], object], *names: str) -> Case:
    def prepare(folder: Path) -> list[str]:
        trees.write_coco(folder / "coco")
        edit(folder / "coco")
        return benchmark_of(folder, "coco2017", "coco", ["car", "cat", "dog", "person"])

    return Case("published", f"COCO's files: {name}", False, prepare, names=names)


def _json(data: bytes | Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def edit(root: Path) -> None:
        file = root / "annotations/instances_val2017.json"
        file.write_bytes(data(file.read_bytes()) if callable(data) else data)

    return edit


FILES: dict[str, tuple] = {
    f"{name} JSON": (_json(data), "instances_val2017.json")
    for name, data in {
        "no": b"",
        "half a": lambda data: data[: len(data) // 2],
        "list of": b"[]",
        "null": b"null",
        "number as": b"7",
        "other": b'{"images": {}}',
        "HTML for": b"<html>",
        "deep": b"[" * 10**5,
        "UTF-16": lambda data: data.decode().encode("utf-16"),
        "Latin": b'{"images": "\xff"}',
        "zipped": b"PK\3\4\0\0",
        "two of": lambda data: data + data,
        "one of lines as": lambda data: data.replace(b'], "', b']}\n{"'),
    }.items()
} | {
    "no annotations": (lambda root: shutil.rmtree(root / "annotations"), "annotations"),
    "no pictures": (lambda root: shutil.rmtree(root / "images"), "val2017"),
    "a picture less": (
        lambda root: (root / "images/val2017/000000000632.jpg").unlink(),
        "000000000632",
    ),
    "a picture cut": (
        lambda root: (root / "images/val2017/000000000632.jpg").write_bytes(
            (root / "images/val2017/000000000632.jpg").read_bytes()[:300]
        ),
        "000000000632",
    ),
    "a link outside": (
        lambda root: (
            (root / "images/val2017/000000000632.jpg").unlink(),
            (root / "images/val2017/000000000632.jpg").symlink_to(root.parent / "mine/holiday.jpg"),
        ),
        "000000000632",
    ),
    "a folder as JSON": (
        lambda root: (
            (root / "annotations/instances_val2017.json").unlink(),
            (root / "annotations/instances_val2017.json").mkdir(),
        ),
        "instances_val2017.json",
    ),
}
