"""COCO's annotation files: read, and everything in them checked before anything is made of it.

One ValueError names the file, the first entries that are wrong, how many there are and what to do.
Not here: what lies on top of what in a label map (`ml.datasets.coco`).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as coco_mask

from ml.images.arrays import Masks
from ml.images.decoding import MAX_PIXELS
from ml.images.run_lengths import run_lengths, runs_to_mask
from ml.store.reading import read_text

Entry = dict[str, Any]
"""An image or an annotation as JSON gives it; `read_annotations` has checked the fields that are
read. Before that a value may be anything."""
SHOWN = 3
FAR = 2
"""Coordinates beyond so many of a picture's longer sides are not of that picture."""
MOST_BYTES, MOST_LISTS, MOST_PARTS = 1 << 30, 10_000_000, 100_000_000
"""Of the file, some twice what train2017 has (0.5 GB, 4 million lists and objects, 40 million
values): JSON of a few bytes a list takes a hundred times its size in memory, 8 GB at these."""
AGAIN = "half a download? Unpack annotations_trainval2017.zip again"


def read_annotations(
    file: Path, categories: Mapping[int, str]
) -> tuple[dict[int, Entry], dict[int, list[Entry]]]:
    """(image id -> image, image id -> its annotations), train2017 in half a minute.

    Raises ValueError for a file that is not COCO's, other categories than these, and entries that
    cannot be honoured.
    """
    values = _lists_of(file)
    _check_categories(file, values["categories"], categories)
    return _entries(file, values, categories)


def read_own_annotations(
    file: Path,
) -> tuple[dict[int, str], dict[int, Entry], dict[int, list[Entry]]]:
    """(category id -> name, *`read_annotations`) of a file whose categories are its own."""
    values = _lists_of(file)
    categories = _categories(file, values["categories"])
    texts = [name for name in categories.values() if isinstance(name, str) and name.strip()]
    listed = len(values["categories"])
    if not len(set(texts)) == len(categories) == listed or not all(map(_whole, categories)):
        raise ValueError(
            f"{file}: expected categories with a whole number and a name of their own each, got "
            f"{values['categories'][:2]!r:.120}"
        )
    return categories, *_entries(file, values, categories)


def whole_picture_mask(shape: object, size: tuple[int, ...], name: str) -> Masks:
    """The mask bool (H,W) of run lengths that are not checked yet; `name` names them in messages.
    ValueError for what is none of the picture."""
    height, width = size
    if not isinstance(shape, dict) or (fault := _runs_fault(shape, height, width)):
        raise ValueError(
            f"{name}, ignored: {fault if isinstance(shape, dict) else repr(shape)[:40]}; expected "
            'run lengths {"size": [height, width], "counts": ...} of the whole picture'
        )
    return runs_to_mask(_runs(shape["counts"]), height, width)


def _lists_of(file: Path) -> dict[str, list[Any]]:
    """The file's lists, of which nothing is checked yet."""
    try:
        values = json.loads(_bounded(read_text(file, MOST_BYTES)))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not COCO's annotations ({error}): {AGAIN}") from error
    parts = ("categories", "images", "annotations")
    if not isinstance(values, dict) or not all(isinstance(values.get(p), list) for p in parts):
        raise ValueError(
            f"{file} is not COCO's annotations: expected the lists {', '.join(parts)}: {AGAIN}"
        )
    return values


def _entries(
    file: Path, values: dict[str, list[Any]], categories: Mapping[int, str]
) -> tuple[dict[int, Entry], dict[int, list[Entry]]]:
    """The checked images and annotations."""
    images = _checked(
        file,
        "image",
        values["images"],
        _image_faults(),
        "mend or remove these images and their annotations",
    )
    pictures = {image["id"]: image for image in images}
    faults = _annotation_faults(pictures, categories)
    annotations = _checked(
        file,
        "annotation",
        values["annotations"],
        faults,
        "mend or remove these annotations; their objects are polygons [[x, y, x, y, x, y, ...]] in "
        'pixels or run lengths {"size": [height, width], "counts": ...} of the whole picture',
    )
    _refuse_fractions(file, annotations)
    by_image: dict[int, list[Entry]] = {id_: [] for id_ in pictures}
    for annotation in annotations:
        by_image[annotation["image_id"]].append(annotation)
    return pictures, by_image


def _bounded(text: str) -> str:
    """The text itself. Raises ValueError for more lists or values than a data set has."""
    lists, parts = text.count("[") + text.count("{"), text.count(",")
    if lists > MOST_LISTS or parts > MOST_PARTS:
        raise ValueError(
            f"it has {lists:,} lists and objects and {parts:,} values, expected {MOST_LISTS:,} and "
            f"{MOST_PARTS:,} at most"
        )
    return text


def annotation_runs(annotation: Entry, height: int, width: int) -> list[int]:
    """The run lengths of a checked annotation's mask, down the columns, background first."""
    shape = annotation["segmentation"]
    if isinstance(shape, dict):
        return _runs(shape["counts"])
    polygons = [part for part in shape if len(part) >= 6]  # two points cover nothing
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return run_lengths(merged["counts"].decode("ascii"))


def _categories(file: Path, listed: list[Any]) -> dict[int, str]:
    try:
        found = {category["id"]: category["name"] for category in listed}
        set(found.items())  # names that can be compared
    except (TypeError, KeyError) as error:
        raise ValueError(
            f"{file}: expected categories with id and name, got {listed[:2]!r:.120}; "
            "unpack annotations_trainval2017.zip again"
        ) from error
    return found


def _check_categories(file: Path, listed: list[Any], expected: Mapping[int, str]) -> None:
    found = _categories(file, listed)
    odd = sorted(set(found.items()) ^ set(expected.items()), key=str)
    if odd or not all(type(number) is int for number in found) or len(listed) != len(expected):
        raise ValueError(
            f"{file}: expected COCO's {len(expected)} categories, got {len(listed)}; "
            f"they differ at {odd[:4]}. For classes of your own use benchmark.source: "
            "folder"
        )


def _checked(
    file: Path, what: str, entries: list[Any], fault: Callable[[Entry], str | None], remedy: str
) -> list[Entry]:
    """The entries, when none has a fault and no id comes twice."""
    wrong: list[str] = []
    count, ids = 0, set()
    for place, entry in enumerate(entries):
        id_ = entry.get("id") if isinstance(entry, dict) else None
        if not _whole(id_):
            name = f"{what}s[{place}]"
            found: str | None = f"id {id_!r:.40}; expected a whole number from 0"
        else:
            name = f"{what} {id_}"
            found = "its id comes twice" if id_ in ids else fault(entry)
            ids.add(id_)
        if found:
            count += 1
            wrong += [f"{name}: {found}"] if len(wrong) < SHOWN else []
    if wrong:
        raise ValueError(
            f"{file}: {count} of {len(entries)} {what}s cannot be used: "
            f"{' · '.join(wrong)}. {remedy[0].upper()}{remedy[1:]}"
        )
    return entries


def _whole(value: object, least: int = 0) -> TypeGuard[int]:
    return type(value) is int and value >= least


def _image_faults() -> Callable[[Entry], str | None]:
    files: dict[str, int] = {}

    def fault(image: Entry) -> str | None:
        name, height, width = (image.get(key) for key in ("file_name", "height", "width"))
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            return f"file_name {name!r:.60}; expected the picture's file"
        if (
            PurePosixPath(name).is_absolute()
            or PureWindowsPath(name).drive
            or ".." in PureWindowsPath(name).parts
        ):
            return f"file_name {name!r:.60} leaves the pictures' folder"
        if files.setdefault(name, image["id"]) != image["id"]:
            return f"file_name {name!r:.60} is image {files[name]}'s"
        if not (_whole(height, 1) and _whole(width, 1) and height * width <= MAX_PIXELS):
            return (
                f"height {height!r:.20}, width {width!r:.20}; expected whole numbers from 1, "
                f"{MAX_PIXELS:,} pixels at most"
            )
        return None

    return fault


def _annotation_faults(
    images: Mapping[int, Entry], categories: Mapping[int, str]
) -> Callable[[Entry], str | None]:
    def fault(annotation: Entry) -> str | None:
        picture, category = annotation.get("image_id"), annotation.get("category_id")
        if (
            not _whole(picture)
            or picture not in images
            or not _whole(category)
            or category not in categories
        ):
            return (
                f"names picture {picture!r:.40} and category {category!r:.40}; expected a "
                f"listed picture and one of COCO's {len(categories)} categories"
            )
        if (crowd := annotation.get("iscrowd", 0)) not in (0, 1):
            return f"iscrowd {crowd!r:.20}; expected 0 or 1"
        shape, image = annotation.get("segmentation"), images[picture]
        if isinstance(shape, dict):
            return _runs_fault(shape, image["height"], image["width"])
        if not isinstance(shape, list) or not shape:
            return f"segmentation {shape!r:.40}; expected polygons or run lengths"
        return _polygons_fault(shape, FAR * max(image["height"], image["width"]))

    return fault


def _polygons_fault(polygons: list[Any], far: int) -> str | None:
    sizes = []
    for polygon in polygons:
        values = _numbers(polygon)
        if values is None or values.size % 2:
            return (
                f"segmentation {polygons!r:.60}: {polygon!r:.30} is no polygon; expected lists "
                "of pairs x, y"
            )
        if not np.isfinite(values).all() or values.size and np.abs(values).max() > far:
            return f"a polygon of values up to {np.abs(values).max():g} lies far off the picture"
        sizes.append(values.size)
    if max(sizes) < 6:
        return f"its polygons have {max(sizes) // 2} points; expected three or more"
    return None


def _numbers(polygon: object) -> np.ndarray | None:
    """float64 (n,), None for what is no flat list of numbers."""
    if not isinstance(polygon, list):
        return None
    try:
        values = np.asarray(polygon)
    except ValueError:  # lists in lists, of unequal lengths
        return None
    if values.ndim != 1 or values.size and values.dtype.kind not in "iuf":
        return None
    return values.astype(np.float64)


def _runs(counts: str | list[int]) -> list[int]:
    return list(counts) if isinstance(counts, list) else run_lengths(counts)


def _runs_fault(shape: Entry, height: int, width: int) -> str | None:
    size, counts = shape.get("size"), shape.get("counts")
    if size != [height, width]:
        return f"run lengths of size {size!r:.40}; expected its picture's, [{height}, {width}]"
    if not isinstance(counts, str | list):
        return f"counts {counts!r:.40}; expected a list of run lengths or COCO's text of them"
    try:
        runs = _runs(counts)
    except ValueError as error:
        return f"counts {counts!r:.40}: {error}"
    if not all(_whole(run) for run in runs):
        return f"counts {counts!r:.40}; expected whole numbers from 0"
    if sum(runs) != height * width:
        return f"run lengths over {sum(runs)} pixels; its picture has {height * width}"
    return None


def _refuse_fractions(file: Path, annotations: list[Entry]) -> None:
    """Polygons in fractions of the picture would all be one pixel in its corner."""
    shapes = [own["segmentation"] for own in annotations if isinstance(own["segmentation"], list)]
    polygons = [polygon for shape in shapes for polygon in shape if polygon]
    if polygons and all(max(polygon) <= 1 for polygon in polygons):
        raise ValueError(
            f"{file}: every polygon lies within 0..1; expected pixels, not fractions "
            "of the picture's width and height: multiply them"
        )
