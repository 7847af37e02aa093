"""python -m ml.foundation.curves

Keeps what the trainings left in their work folders: settings and thinned loss curves go to
`docs/microworld/`, drawn together in `docs/images/curves.png`.
"""

import argparse
import shutil
import sys
from pathlib import Path

import matplotlib
import pandas as pd

from ml.errors import EXIT_CODES, exit_path
from ml.foundation.card import TRAINERS
from ml.store.files import atomic

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  the backend must be chosen first


def keep(work: Path, docs: Path) -> list[Path]:
    """Copies `<work>/<training>/{settings.json,curve.csv}`; returns the curves that docs holds."""
    for name in TRAINERS:
        for file, ending in (("settings.json", "json"), ("curve.csv", "csv")):
            if (work / name / file).is_file():
                with atomic(docs / f"{name}.{ending}") as temporary:
                    shutil.copyfile(work / name / file, temporary)
    return [docs / f"{name}.csv" for name in TRAINERS if (docs / f"{name}.csv").is_file()]


def draw(curves: list[Path], out: Path) -> None:
    """One panel a training: loss over the samples seen, logarithmic."""
    figure, axes = pyplot.subplots(1, len(curves), figsize=(3.2 * len(curves), 2.6))
    for axis, curve in zip(axes, curves, strict=True):
        frame = pd.read_csv(curve)
        axis.plot(frame["samples"] / 1000, frame["loss"], color="#4a7fb5", linewidth=1)
        axis.set(title=curve.stem, xlabel="thousand pictures", yscale="log")
    figure.tight_layout()
    with atomic(out) as temporary:
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXIT_CODES)
    parser.add_argument("--work", type=Path, default=Path(".scratch/train"))
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    chosen = parser.parse_args()
    curves = keep(chosen.work, chosen.docs / "microworld")
    if len(curves) < 2:
        raise ValueError(f"no curves in {chosen.work} or {chosen.docs}/microworld: train first")
    draw(curves, chosen.docs / "images" / "curves.png")


if __name__ == "__main__":
    sys.exit(exit_path(main)())
