"""What the Dagster UI shows of a finished stage: numbers, paths, contact sheet, training curve.

The UI plots numbers over materializations. Pictures below 100 KB are shown as data URIs; larger
ones stay files, because metadata is stored in the event log.
"""

import base64
from pathlib import Path

import dagster as dg

from ml.pipeline.curve import draw_curve
from ml.pipeline.facts import flatten
from ml.pipeline.runner import StageReport

MAX_PICTURE = 100_000  # bytes; multi-megabyte metadata freezes the UI's dialog


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
    """The contact sheet and the training curve of a stage's folder, if it has them."""
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
