"""A `Plot` as SVG: the same figures give the same bytes, and nothing refers to anything outside.

Inline in the HTML page it takes the page's ink, light or dark; as a file it stands on white.
"""

import functools
import io
import math

import matplotlib

from ml.images.plots import INK, LITERAL, label, own_svg
from ml.studies.blocks import Plot

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  the backend must be chosen first

COLOURS = ("#d9622b", "#4a7fb5", "#3c9a6b", "#a05fb4", "#c39a1f", "#c04a6e", "#5a8f9a")
PAPER = "#8a97a3"
"""Colour of the paper's own series."""
MOST_TICKS = 8


def draw_svg(plot: Plot, inline: str = "") -> str:
    """An `<svg>`. inline: what makes its ids unique within a page; its ink is then the page's.

    Series of one point each become bars, others lines, with a bar of one spread up and down; points
    that are not finite are left out. Raises ValueError for a plot without any point.
    """
    series = {
        name: tuple(sorted(p for p in points if math.isfinite(p[1])))
        for name, points in plot.series.items()
    }
    kept = tuple((name, points) for name, points in series.items() if points)
    if not kept:
        raise ValueError(f"plot {plot.title!r} has no point: expected a series with one at least")
    return _drawn(plot.title, plot.x, plot.y, kept, inline)


@functools.lru_cache(256)  # the pages are written after each study, with the plots of all
def _drawn(title: str, x: str, y: str, kept: tuple, inline: str) -> str:
    series = dict(kept)
    rc = LITERAL | {
        "svg.hashsalt": title,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.family": "sans-serif",
        "font.size": 10,
        "figure.constrained_layout.use": True,
    }
    with matplotlib.rc_context(rc):
        figure, axis = pyplot.subplots(figsize=(7.2, 3.6))
        if all(len(points) == 1 for points in series.values()):
            _bars(axis, series)
        else:
            _lines(axis, series)
        axis.set_xlabel(label(x))
        axis.set_ylabel(label(y))
        axis.grid(axis="y", color=PAPER, alpha=0.3, linewidth=0.6)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=bool(inline))
        pyplot.close(figure)
    return own_svg(buffer.getvalue().decode(), inline)


def _lines(axis, series: dict[str, tuple]) -> None:
    drawn = []
    for (name, points), colour in zip(series.items(), _colours(series), strict=True):
        own = {"fmt": "--", "marker": "D", "markersize": 4} if _papers(name) else {"fmt": "-o"}
        x, y, spread = zip(*points, strict=True)
        drawn.append(
            axis.errorbar(x, y, yerr=_spreads(spread), color=colour, capsize=3, label=name, **own)
        )
    ticks = sorted({point[0] for points in series.values() for point in points})
    if len(ticks) <= MOST_TICKS:
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    # With the names given: of its own accord the legend leaves out those that begin with "_".
    axis.legend(
        drawn,
        [label(name) for name in series],
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )


def _bars(axis, series: dict[str, tuple]) -> None:
    heights, spreads = zip(
        *((points[0][1], points[0][2]) for points in series.values()), strict=True
    )
    axis.bar(
        range(len(series)),
        heights,
        yerr=_spreads(spreads),
        color=_colours(series),
        ecolor=INK,
        capsize=3,
        width=0.7,
    )
    axis.set_xticks(range(len(series)), [label(name) for name in series], rotation=20, ha="right")


def _colours(series: dict) -> list[str]:
    own = [name for name in series if not _papers(name)]
    return [PAPER if _papers(name) else COLOURS[own.index(name) % len(COLOURS)] for name in series]


def _papers(name: str) -> bool:
    """Whether a series is the paper's: "paper", or "paper (of what)"."""
    return name == "paper" or name.startswith("paper (")


def _spreads(values) -> list[float]:
    return [value if value and math.isfinite(value) else 0.0 for value in values]
