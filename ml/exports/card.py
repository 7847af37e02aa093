"""The card of an export: README.md, with YAML at its head where the format wants it.

Everything that people typed, class names above all, is escaped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ml.exports.about import About
from ml.exports.counts import Counts
from ml.images.overlays import IGNORED
from ml.words.markdown import escape

MEASURED = {
    "polygon_iou_mean": "IoU of the polygons, read again, with the masks: mean",
    "polygon_iou_least": "the same of the worst object",
    "levels_changed": "levels (of 255) by which JPEG changes a value, mean",
    "objects": "objects",
    "objects_of_several_rings": "objects with holes or several parts",
    "tar_files": "tar files",
}
"""What a writer may have measured, in words."""


def card(
    about: About,
    counts: Counts,
    measured: Mapping[str, Any],
    read: str,
    loses: Sequence[str],
    front_matter: Mapping[str, Any],
) -> str:
    """The whole text. read: Python that reads the export; loses: what the format cannot hold."""
    head = ""
    if front_matter:
        text = yaml.safe_dump(dict(front_matter), allow_unicode=True, sort_keys=False)
        head = f"---\n{text}---\n\n"
    parts = [
        f"# {escape(about.name)}",
        escape(about.intro),
        f"In Python, in this folder:\n\n```python\n{read.strip()}\n```",
        "## Pictures by class and split",
        _classes(counts),
        *_measured(measured),
        "## How it was made",
        _table(("", ""), about.facts),
        "## Known faults",
        "\n".join(f"- {escape(fault)}" for fault in (*about.faults, *loses)),
        *precision_part(about.precision),
        "## Licences",
        _licences(about),
    ]
    return head + "\n\n".join(parts) + "\n"


def _measured(measured: Mapping[str, Any]) -> list[str]:
    if not measured:
        return []
    rows = [(MEASURED.get(name, name), number_text(value)) for name, value in measured.items()]
    return ["## This export", _table(("", ""), rows)]


def precision_part(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The section on audited masks: precision by class with its interval, in percent.

    rows: of `ml.pipeline.audit.precision`; no row, no section.
    """
    if not rows:
        return []
    cells = [
        (
            row["class"],
            str(row["judged"]),
            f"{row['precision']:.1f}",
            f"{row['low']:.1f} to {row['high']:.1f}",
        )
        for row in rows
    ]
    return [
        "## Audited masks",
        "A person looked at masks of the set: how many of a hundred are right, with Wilson's 95 % "
        "interval.",
        _table(("class", "judged", "right, %", "95 % interval"), cells),
    ]


def _classes(counts: Counts) -> str:
    rows = [
        (
            name,
            *(str(counts.pictures[split][label]) for split in counts.splits),
            f"{100 * counts.share(label):.2f}",
        )
        for label, name in enumerate(counts.classes, start=1)
    ]
    totals = ("all pictures", *(str(counts.totals[split]) for split in counts.splits), "")
    ignored = (
        f"uncertain ({IGNORED})",
        *("" for _ in counts.splits),
        f"{100 * counts.share(IGNORED):.2f}",
    )
    return _table(("class", *counts.splits, "% of pixels"), [*rows, totals, ignored])


def _licences(about: About) -> str:
    rows = [
        (own.weights, f"{own.name}; {own.note}" if own.note else own.name) for own in about.licences
    ]
    return (
        "No licence is given here for the set itself: what may be done with it follows from the "
        "terms of what made it. They may have changed; read them.\n\n"
        + _table(("weights or data", "licence"), rows)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number_text(value: object) -> str:
    """A measured value: four digits behind the point, or a whole number."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
