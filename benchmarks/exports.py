"""Memory and time of exports at one and ten times the pictures.

    python -m benchmarks.exports [--folder F] [--counts 10000 100000] [--only coco voc ...]

Makes sets of those sizes (32x32 pixels, no two alike but for planted copies; kept), runs
each format in a process of its own, and prints its processor time and its peak memory, imports
included. Ends with exit code 1 when the larger set takes more than 1.1 times the memory.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.memory import apart, watched_peak
from benchmarks.scale_folders import SIDE, mask_of, picture
from ml.arguments import folder, number
from ml.errors import EXIT_CODES, exit_path
from ml.exports import FORMATS
from ml.exports.about import About, Licence
from ml.exports.exporting import Order, write_export
from ml.exports.pictures import LABELLED
from ml.images.facts import picture_facts
from ml.images.png import encode_png
from ml.store.making import write_shards
from ml.store.shards import split

FLAT = 1.1
SHARD = 100
CLASSES = tuple(f"class {number}" for number in range(20))
SCHEMA = pa.schema([*LABELLED, ("text", pa.string()), ("seed", pa.int64())])
ABOUT = About(
    name="a set to measure",
    digest="0" * 64,
    intro="Noise.",
    classes=CLASSES,
    origin={"text": "prompt", "seed": "seed"},
    facts=(),
    faults=(),
    licences=(Licence("none", "none"),),
)


def make(place: Path, count: int) -> None:
    """The shards of a set, those that are not there yet."""
    write_shards(place, "benchmark", split(range(count), SHARD), _rows, SCHEMA)


def _rows(numbers: Sequence[int]) -> pd.DataFrame:
    rows = []
    for one in numbers:
        image, label = picture(one), np.zeros((SIDE, SIDE), np.uint8)
        for place in range(2):
            label[mask_of(one, place)] = 1 + (one + place) % len(CLASSES)
        facts = picture_facts(image)
        rows.append(
            {
                "key": f"synthetic-{one:06d}",
                "file": "",
                "image": encode_png(image),
                "label": encode_png(label),
                "accepted": True,
                "text": f"a photograph of {CLASSES[one % len(CLASSES)]}",
                "seed": one,
            }
            | {name: facts[name] for name in ("width", "height", "dhash", "sha256")}
        )
    return pd.DataFrame(rows)


def measure(kind: str, shards: Path) -> dict[str, float]:
    """Processor seconds and the peak of the memory that cannot be given back, MB."""
    order = Order(kind, {"train": 0.9, "val": 0.1}, 0, 2)
    with TemporaryDirectory(dir=shards.parent) as scratch, watched_peak(0.01) as peak:
        started = time.process_time()
        write_export(Path(scratch) / "out", shards, ABOUT, order)
        seconds = time.process_time() - started
    return {"seconds": seconds, "mb": peak.mb}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=folder, default=Path(".scratch/exports"))
    counts = number(int, 100, 10_000_000)
    parser.add_argument("--counts", type=counts, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--only", choices=list(FORMATS), nargs="+", default=list(FORMATS))
    parser.add_argument("--measure", choices=list(FORMATS), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    place = chosen.folder.absolute()
    if chosen.measure:
        print(json.dumps(measure(chosen.measure, place / str(chosen.counts[0]))))
        return 0
    sizes = sorted(chosen.counts)
    for count in sizes:
        make(place / str(count), count)
    print(f"{'':12}" + "".join(f"{count:>18,}" for count in sizes) + "   memory")
    failed = False
    for kind in chosen.only:
        found = [apart("exports", kind, place, count, "pictures") for count in sizes]
        cells = "".join(f"{own['seconds']:9.1f} s {own['mb']:4.0f} MB" for own in found)
        ratio = found[-1]["mb"] / found[0]["mb"]
        print(f"{kind:12}{cells}   {ratio:.2f}x", flush=True)
        failed |= ratio > FLAT
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(exit_path(main)())
