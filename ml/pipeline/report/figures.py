"""The report's curves as inline SVGs: in the page's ink, the same figures the same bytes."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ml.images.plots import INK, LITERAL, label, own_svg
from ml.metrics.calibration import Reliability
from ml.pipeline.curve import read_curve

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  the backend must be chosen first

SEEN, UNSEEN, OTHER = "#4a7fb5", "#d9622b", "#8a97a3"
"""Seen classes, unseen ones, and what both are compared with: legible on light and dark."""
WORDS = {"seen": SEEN, "unseen": UNSEEN}
SETTINGS = LITERAL | {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "legend.frameon": False,
}
Draw = Callable[[Axes], None]


def draw(name: str, width: float, height: float, fill: Draw) -> str:
    """An `<svg>` of these inches. name: unique within the page."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(SETTINGS | {"svg.hashsalt": name}):
        figure, axis = pyplot.subplots(figsize=(width, height))
        fill(axis)
        axis.grid(color=OTHER, alpha=0.3, linewidth=0.6)
        figure.savefig(
            buffer, format="svg", metadata={"Date": None}, transparent=True, bbox_inches="tight"
        )
        pyplot.close(figure)
    return own_svg(buffer.getvalue().decode(), name)


def training_curve(path: Path, name: str) -> str:
    """Loss, and validation mIoU beside it where the training has one."""
    curves = read_curve(path)

    def fill(axis: Axes) -> None:
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        drawn = axis.plot(*_xy(curves.get("loss", [])), color=SEEN, label="loss")
        if scored := curves.get("val_miou"):
            other = axis.twinx()
            drawn += other.plot(*_xy(scored), "o-", color=UNSEEN, label="validation mIoU, %")
            other.set_ylabel("validation mIoU, %")
        if len(drawn) > 1:
            axis.legend(handles=drawn, loc="center right")

    return draw(name, 5, 2.7, fill)


def _xy(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def class_chart(segmentation: Mapping[str, dict], unseen: Sequence[str], name: str) -> str:
    """A bar a class and segmenter; "" where no class has a score."""
    kinds = {"synthetic": ("synthetic", UNSEEN), "real_upper_bound": ("real bound", OTHER)}
    shown = {key: segmentation[key]["per_class"] for key in kinds if key in segmentation}
    classes = list(dict.fromkeys(c for own in shown.values() for c in own))
    if not classes:
        return ""
    names = [label(c, 40) + " *" * (c in unseen) for c in classes]

    def fill(axis: Axes) -> None:
        wide = 0.8 / len(shown)
        for place, (key, own) in enumerate(shown.items()):
            title, colour = kinds[key]
            left = np.arange(len(classes)) - 0.4 + wide * (place + 0.5)
            heights = [own.get(c, math.nan) for c in classes]
            axis.bar(left, heights, wide, color=colour, label=title)
        axis.set_xticks(range(len(classes)), names, rotation=90)
        axis.set_ylabel("IoU, %")
        axis.set_ylim(0, 100)
        axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2)

    return draw(name, 7, 3.6, fill)


def iou_curves(scores: pd.DataFrame, name: str) -> str:
    """The share of masks that reach an IoU, for seen and unseen words, this module's and DAAM's.

    scores: seen, iou_ours, iou_daam (0..1).
    """

    def fill(axis: Axes) -> None:
        for words, colour in WORDS.items():
            own = scores[scores.seen.astype(bool) == (words == "seen")]
            for column, title, dash in (
                ("iou_ours", "this module", "-"),
                ("iou_daam", "DAAM", ":"),
            ):
                if len(own):
                    reached = np.sort(own[column].to_numpy(float))
                    share = 100 * (1 - np.arange(len(reached)) / len(reached))
                    axis.step(
                        [0, *reached], [100, *share], dash, where="pre", color=colour,
                        label=f"{words}, {title}",
                    )  # fmt: skip
        axis.set_xlabel("IoU with the judge's mask")
        axis.set_ylabel("masks that reach it, %")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 102)
        axis.legend(loc="lower left")

    return draw(name, 5, 3.3, fill)


def reliability_diagram(found: Mapping[str, Reliability], name: str) -> str:
    """Accuracy over confidence (`ml.metrics.calibration`), a line for seen and unseen words."""

    def fill(axis: Axes) -> None:
        axis.plot([0, 1], [0, 1], "--", color=OTHER, label="calibrated")
        for words, own in found.items():
            there = own.count > 0
            axis.plot(
                own.confidence[there],
                own.accuracy[there],
                "o-",
                color=WORDS[words],
                label=f"{words}, error {100 * own.error:.1f} %",
            )
        axis.set_xlabel("probability that a pixel is the word's")
        axis.set_ylabel("share in the judge's mask")
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        axis.legend(loc="upper left")

    return draw(name, 5, 3.6, fill)
