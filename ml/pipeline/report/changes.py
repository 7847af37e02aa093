"""What a run came to, in a few figures, and what changed since the run before.

`summary.json` in the report's folder holds this run's and the one before it: {"now", "before"}. A
report that is made again of the same folders is still compared with the run before.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml.metrics.protocol_two import COLUMNS
from ml.pipeline.facts import full_names
from ml.store.files import read_note
from ml.store.manifest import Manifest
from ml.words.cells import CELLS

FILE = "summary.json"
_FILE = {"now": dict, "before": (dict, type(None))}
_SUMMARY = ("figures", "settings", "digests")
DIGESTS = ("_digest", "marks_")
"""Of settings' names: those that say nothing to a reader but that something changed."""


def summarize(manifests: Mapping[str, Manifest], precision: float | None) -> dict[str, Any]:
    """The present run: {"figures": name -> number, "settings": name -> value, "digests": by stage}.

    manifests: of the stages that the report shows. precision: percent, of the judged masks of the
    synthetic set. A figure that the run does not have is left out.
    """
    facts = {name: manifest.facts for name, manifest in manifests.items()}
    grounding, scores = facts["grounding_scores"], facts["benchmark_scores"].get("synthetic", {})
    error = grounding.get("calibration_error", {}).get("all")
    figures = {
        **{f"Protocol I, {CELLS[c].report}, mIoU %": grounding["ours"].get(c) for c in CELLS},
        "calibration error of mask probabilities, %": None if error is None else 100 * error,
        **{f"segmenter, {column}, mIoU %": scores.get(column) for column in COLUMNS},
        "triplets accepted": facts["triplets"].get("accepted"),
        "synthetic pictures accepted": facts["synthetic_dataset"].get("accepted"),
        "judged masks that are right, %": precision,
    }
    settings: dict[str, Any] = {}
    for manifest in manifests.values():
        settings |= full_names(manifest.params)
    return {
        "figures": {name: value for name, value in figures.items() if value is not None},
        "settings": settings,
        "digests": {name: manifest.digest for name, manifest in manifests.items()},
    }


def with_before(now: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The content of summary.json. folder: of the report that was made last, if there is one."""
    last = read_note(folder / FILE, _FILE)
    if last is None or not _whole(last["now"]):
        return {"now": now, "before": None}
    same = last["now"]["digests"] == now["digests"]
    before = last["before"] if same else last["now"]
    return {"now": now, "before": before if before is None or _whole(before) else None}


def _whole(summary: dict[str, Any]) -> bool:
    return all(isinstance(summary.get(name), dict) for name in _SUMMARY)


def differences(now: dict[str, Any], before: dict[str, Any]) -> dict[str, list[Any]]:
    """{"figures": (name, before, now), "settings": (name, before, now), "stages": names made anew}.

    Figures are all of both runs, None where a run has it not; settings those that differ, as text.
    """
    names = list(dict.fromkeys([*now["figures"], *before["figures"]]))
    settings = dict.fromkeys([*before["settings"], *now["settings"]])
    old, new = before["settings"], now["settings"]
    return {
        "figures": [
            (name, before["figures"].get(name), now["figures"].get(name)) for name in names
        ],
        "settings": [
            (name, _shown(name, old), _shown(name, new))
            for name in settings
            if (name in old, old.get(name)) != (name in new, new.get(name))
        ],
        "stages": [
            name for name, digest in now["digests"].items() if before["digests"].get(name) != digest
        ],
    }


def _shown(name: str, settings: dict[str, Any]) -> str:
    if name not in settings:
        return "not there"
    if any(part in name for part in DIGESTS):
        return str(settings[name])[:12]
    return json.dumps(settings[name], ensure_ascii=False)
