"""A stage's training curve: `curve.csv` read as points, and drawn as a small picture."""

import csv
import io
import math
from pathlib import Path

COLOURS = ("#3366cc", "#dc3912", "#109618", "#ff9900", "#990099", "#0099c6")


def read_curve(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Points (step, value) of every column of a `curve.csv` but `step`; empty cells left out."""
    curves: dict[str, list[tuple[float, float]]] = {}
    with path.open(newline="") as handle:
        for row in csv.DictReader(handle):
            step = float(row.pop("step"))
            for name, text in row.items():
                if text and math.isfinite(value := float(text)):
                    curves.setdefault(name, []).append((step, value))
    return curves


def draw_curve(path: Path, width: int = 480, height: int = 200) -> bytes:
    """A small PNG, one line per column, each scaled to its own range; b"" without two points."""
    from PIL import Image, ImageDraw

    curves = {name: points for name, points in read_curve(path).items() if len(points) > 1}
    if not curves:
        return b""
    canvas = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(canvas)
    last = max(points[-1][0] for points in curves.values()) or 1.0
    for index, (name, points) in enumerate(curves.items()):
        values = [value for _, value in points]
        low, span = min(values), (max(values) - min(values)) or 1.0
        colour = COLOURS[index % len(COLOURS)]
        line = [
            (8 + (width - 16) * step / last, height - 8 - (height - 60) * (value - low) / span)
            for step, value in points
        ]
        pen.line(line, fill=colour, width=2)
        pen.text(
            (8 + 150 * (index % 3), 4 + 14 * (index // 3)),
            f"{name} {values[0]:.3g} > {values[-1]:.3g}",
            fill=colour,
        )
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
