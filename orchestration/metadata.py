"""What the Dagster UI shows of a finished stage: numbers, paths, contact sheet, training curve.

Numbers become plots over materializations. Pictures go in as data URIs below 100 KB, because
metadata lives in the event log; larger ones stay files.
"""

import base64
import csv
import io
import math
from pathlib import Path

import dagster as dg

from ml.pipeline.runner import StageReport

MAX_PICTURE = 100_000  # bytes; multi-megabyte metadata freezes the UI's dialog
COLOURS = ("#3366cc", "#dc3912", "#109618", "#ff9900", "#990099", "#0099c6")


def describe(report: StageReport, folder: Path) -> dict[str, dg.MetadataValue]:
    """Typed metadata of a stage's folder; pictures first, since the UI keeps the order."""
    values = pictures(folder) | {
        "folder": dg.MetadataValue.path(str(folder)),
        "manifest_sha256": dg.MetadataValue.text(report.digest),
        "seconds": dg.MetadataValue.float(float(report.seconds)),
        "peak_rss_mb": dg.MetadataValue.float(float(report.peak_rss_mb)),
        "already_up_to_date": dg.MetadataValue.bool(report.cached),
    }
    return values | {name: typed(value) for name, value in flatten(report.facts).items()}


def pictures(folder: Path) -> dict[str, dg.MetadataValue]:
    """The contact sheet and the training curve of a stage's folder, as far as it has them."""
    found = {}
    sheet, curve = folder / "contact_sheet.jpg", folder / "curve.csv"
    if sheet.is_file():
        found["contact_sheet"] = picture(sheet.read_bytes(), "jpeg", sheet)
    if curve.is_file() and (drawn := draw_curve(curve)):
        found["training_curve"] = picture(drawn, "png", curve)
    return found


def picture(data: bytes, kind: str, path: Path) -> dg.MetadataValue:
    """An encoded picture shown in the UI; its path alone when it is too large for that."""
    if len(data) > MAX_PICTURE:
        return dg.MetadataValue.path(str(path))
    text = base64.b64encode(data).decode()
    return dg.MetadataValue.md(f"![{path.name}](data:image/{kind};base64,{text})")


def flatten(facts: dict, prefix: str = "") -> dict[str, object]:
    """Nested facts as one level: {"a": {"b": 1}} -> {"a/b": 1}."""
    return {prefix + "/".join(path): value for path, value in paths(facts).items()}


def paths(facts: dict, *prefix: str) -> dict[tuple[str, ...], object]:
    """Nested facts by their path: {"a": {"b": 1}} -> {("a", "b"): 1}; a name may hold a slash."""
    flat: dict[tuple[str, ...], object] = {}
    for key, value in facts.items():
        path = (*prefix, str(key))
        flat |= paths(value, *path) if isinstance(value, dict) else {path: value}
    return flat


def typed(value: object) -> dg.MetadataValue:
    """A fact as the metadata type that the UI plots (numbers) or prints (the rest)."""
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(value)
    return (
        dg.MetadataValue.json(value)
        if isinstance(value, list)
        else dg.MetadataValue.text(str(value))
    )


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
