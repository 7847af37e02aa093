"""Compare: the scores of two runs side by side, and what differs in how they were made.

A run is a folder below data/ that holds finished stages: a profile's, or a copy of one that
somebody kept under another name.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.metrics.protocol_two import COLUMNS, SEGMENTERS
from ml.pipeline.facts import full_names
from ml.pipeline.finished import manifest_of
from ml.pipeline.table import STAGES
from ml.pipeline.workspace import Workspace
from ml.store.manifest import Manifest
from ml.words.cells import CELLS

METHODS = {"ours": "this module", "daam": "DAAM"}


@dataclass(frozen=True)
class Score:
    """One row: percent, None where a run has none."""

    name: str
    one: float | None
    other: float | None

    @property
    def difference(self) -> float | None:
        """other - one, in points."""
        return None if self.one is None or self.other is None else self.other - self.one


@dataclass(frozen=True)
class Change:
    """What differs, as text; "-" where a run has none."""

    name: str
    one: str
    other: str


@dataclass(frozen=True)
class Comparison:
    """scores: title of a table -> its rows. cautions: why scores may not be compared."""

    scores: dict[str, list[Score]]
    cautions: list[str]
    settings: list[Change]
    facts: list[Change]


def runs(root: Path) -> list[str]:
    """Names of the folders below data/ that hold a finished stage."""
    data = Workspace(root, "x").data.parent
    folders = sorted(path for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    return [path.name for path in folders if _manifests(root, path.name)]


def compare(root: Path, one: str, other: str) -> Comparison:
    """Raises ValueError for a name that is no finished run."""
    known = runs(root)
    for name in (one, other):
        if name not in known:
            raise ValueError(f"no finished run {name!r:.80}: expected one of {', '.join(known)}")
    left, right = _manifests(root, one), _manifests(root, other)
    return Comparison(
        {
            "Protocol I: masks of words on generated pictures (mIoU, %)": _cells(left, right),
            "Protocol II: segmenters on the benchmark (mIoU, %)": _segmenters(left, right),
            "Segmenter by class (IoU, %)": _classes(left, right),
        },
        _cautions(left, right),
        _changes(_settings(left), _settings(right)),
        _changes(_facts(left), _facts(right)),
    )


def _manifests(root: Path, name: str) -> dict[str, Manifest]:
    workspace = Workspace(root, name)
    found = {stage.name: manifest_of(workspace, stage.name) for stage in STAGES}
    return {stage: manifest for stage, manifest in found.items() if manifest is not None}


def _score(found: dict[str, Manifest], stage: str, *path: str) -> float | None:
    value: Any = found[stage].facts if stage in found else {}
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _rows(left: dict, right: dict, stage: str, named: dict[str, tuple[str, ...]]) -> list[Score]:
    rows = [
        Score(name, _score(left, stage, *path), _score(right, stage, *path))
        for name, path in named.items()
    ]
    return [row for row in rows if row.one is not None or row.other is not None]


def _cells(left: dict[str, Manifest], right: dict[str, Manifest]) -> list[Score]:
    named = {
        f"{title}: {cell.report}": (method, key)
        for method, title in METHODS.items()
        for key, cell in CELLS.items()
    }
    return _rows(left, right, "grounding_scores", named)


def _segmenters(left: dict[str, Manifest], right: dict[str, Manifest]) -> list[Score]:
    named = {
        f"{title}: {column}": (kind, column)
        for kind, title in SEGMENTERS.items()
        for column in COLUMNS
    }
    return _rows(left, right, "benchmark_scores", named)


def _classes(left: dict[str, Manifest], right: dict[str, Manifest]) -> list[Score]:
    """The classes of either run, the largest difference first."""
    names: dict[str, None] = {}
    for found in (left, right):
        if "benchmark_scores" in found:
            own = found["benchmark_scores"].facts.get("synthetic", {}).get("per_class", {})
            names |= dict.fromkeys(own)
    named = {name: ("synthetic", "per_class", name) for name in sorted(names)}
    rows = _rows(left, right, "benchmark_scores", named)
    return sorted(rows, key=lambda row: -abs(row.difference or 0.0))


def _cautions(left: dict[str, Manifest], right: dict[str, Manifest]) -> list[str]:
    texts = []
    for stage, inputs, what in (
        ("grounding_scores", ("images", "triplets"), "Protocol I was judged on other pictures"),
        ("benchmark_scores", ("benchmark",), "Protocol II was judged on another benchmark"),
    ):
        missing = [side for side, own in (("first", left), ("second", right)) if stage not in own]
        if missing:
            texts.append(f"The {' and the '.join(missing)} run has no {stage} yet.")
        elif any(left[stage].inputs.get(i) != right[stage].inputs.get(i) for i in inputs):
            texts.append(f"{what} in the second run: its differences are not the models' alone.")
    return texts


def _settings(found: dict[str, Manifest]) -> dict[str, str]:
    """Each setting once, by its full name."""
    flat: dict[str, str] = {}
    for manifest in found.values():
        for name, value in full_names(manifest.params).items():
            flat[name] = value if isinstance(value, str) else json.dumps(value)
    return flat


def _facts(found: dict[str, Manifest]) -> dict[str, str]:
    """Of each stage which data it is (its digest) and how many rows; of the promotion, why."""
    facts = {}
    for name, manifest in found.items():
        rows = sum(entry.get("rows", 0) for entry in manifest.files.values())
        facts[name] = manifest.digest[:12] + (f", {rows:,} rows" if rows else "")
    for model in ("grounding", "segmenter"):
        own = found["promotion"].facts.get(model) if "promotion" in found else None
        if isinstance(own, dict):
            facts[f"promotion of the {model}"] = f"{own.get('state')}: {own.get('reason')}"
    return facts


def _changes(one: dict[str, str], other: dict[str, str]) -> list[Change]:
    names = list(dict.fromkeys([*one, *other]))
    return [
        Change(name, one.get(name, "-"), other.get(name, "-"))
        for name in names
        if one.get(name) != other.get(name)
    ]
