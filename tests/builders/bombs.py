"""Input that was made to fill memory or time, and the readers that get it: one process with a limit
on its memory, which prints what became of each.

python -m tests.builders.bombs <folder>
"""

import json
import pickle
import resource
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ml.datasets.coco import CATEGORIES, Coco2017
from ml.datasets.coco_annotations import MOST_LISTS, read_annotations
from ml.datasets.mat import read_struct_matrix
from ml.images.label_maps import open_mask
from ml.images.photographs import open_picture, picture_size
from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.settings.profile import load_params
from ml.store.reading import MOST_BYTES, MOST_SETTINGS, read_object, read_text, read_yaml
from ml.words.vocabulary import load_vocabulary

FREE = 1 << 30
"""Bytes that a reader may take beyond what the process has when it begins."""


def png(width: int, height: int, mode: int = 2, data: bytes = b"\0" * 1000) -> bytes:
    """A PNG that states a size, whatever it holds."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        ends = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + ends

    head = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def written(file: Path, data: bytes | str) -> Path:
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


def sparse(file: Path, size: int) -> Path:
    """A file that states a size and holds nothing."""
    with file.open("wb") as handle:
        handle.truncate(size)
    return file


def crowded(folder: Path, side: int = 9000, count: int = 15) -> int:
    """A COCO picture of nearly the most pixels with objects whose masks, all at once, would take
    more than FREE; how many pixels have labels."""
    (folder / "annotations").mkdir()
    (folder / "val2017").mkdir()
    objects = [
        {
            "id": i,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "segmentation": {"size": [side, side], "counts": [i, 1, side**2 - i - 1]},
        }
        for i in range(count)
    ]
    values = {
        "categories": [{"id": id_, "name": name} for id_, name in CATEGORIES.items()],
        "images": [{"id": 1, "file_name": "1.jpg", "height": side, "width": side}],
        "annotations": objects,
    }
    written(folder / "annotations/instances_val2017.json", json.dumps(values))
    return int((Coco2017(folder, "test").truth("000000000001") > 0).sum())


def packed(file: Path) -> Path:
    """A torch file of 200 MB in 0.2 MB; one of 200 GB would look the same."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("archive/data/0", b"\0" * (200 << 20))
    return file


def matlab() -> bytes:
    """A compressed variable of 1 GB."""
    pack = zlib.compressobj(1)
    body = b"".join(pack.compress(b"\0" * (1 << 20)) for _ in range(1024)) + pack.flush()
    return b"\0" * 124 + b"\0\1IM" + struct.pack("<II", 15, len(body)) + body


def repeated() -> bytes:
    """A thousand names of one array of 8 MB."""
    array = np.zeros(1 << 20)
    return pickle.dumps({"model": {f"w{i}": array for i in range(1000)}, "__author__": "x"})


def cases(folder: Path) -> dict[str, Callable[[], object]]:
    from ml.detectors.weights import load_weights

    yaml_long = written(folder / "long.yaml", "seen:\n" + "- dog\n" * 500_000)
    yaml_deep = written(folder / "deep.yaml", "seen: " + "[" * 100_000)
    return {
        "photo": lambda: open_picture(png(60_000, 60_000)),
        "photo, a little too large": lambda: open_picture(png(9_500, 9_500)),
        "photo's size": lambda: picture_size(written(folder / "p.png", png(60_000, 60_000))),
        "label map": lambda: open_mask(written(folder / "m.png", png(60_000, 60_000, 0))),
        "stored picture": lambda: decode_png(png(60_000, 60_000)),
        "stored picture, a little too large": lambda: decode_png(png(12_000, 12_000)),
        "run lengths": lambda: decode_rle(json.dumps({"size": [10**6, 10**6], "counts": "0" * 9})),
        "text without end": lambda: read_text("/dev/zero"),
        "long text": lambda: read_text(sparse(folder / "t.txt", MOST_BYTES + 1)),
        "long YAML": lambda: read_yaml(sparse(folder / "l.yaml", MOST_SETTINGS + 1)),
        "YAML of many values": lambda: load_vocabulary(yaml_long),
        "YAML of many levels": lambda: load_vocabulary(yaml_deep),
        "profile": lambda: load_params(str(yaml_long)),
        "long JSON": lambda: read_object(sparse(folder / "l.json", MOST_SETTINGS + 1)),
        "JSON of many levels": lambda: read_object(written(folder / "d.json", "[" * 10**6)),
        "JSON of many lists": lambda: read_annotations(
            written(folder / "many.json", b"[" + b"[]," * (MOST_LISTS + 1) + b"0]"), CATEGORIES
        ),
        "long annotations": lambda: read_annotations(
            sparse(folder / "long.json", 3 << 30), CATEGORIES
        ),
        "crowded picture": lambda: crowded(folder),
        "MATLAB": lambda: read_struct_matrix(matlab(), "GTcls", "Segmentation"),
        "packed weights": lambda: load_weights(packed(folder / "w.pth")),
        "repeated weights": lambda: load_weights(written(folder / "w.pkl", repeated())),
    }


def main(folder: Path) -> None:
    chosen = cases(folder)
    before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (before + FREE, before + FREE))
    for name, read in chosen.items():
        started = time.process_time()
        try:
            kind, said = "done", repr(read())
        except Exception as error:
            kind, said = type(error).__name__, str(error)
        spent = time.process_time() - started
        print(json.dumps({"name": name, "kind": kind, "said": said[:600], "seconds": spent}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
