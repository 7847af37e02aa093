"""Stage `report`: one self-contained HTML page of the run, with pictures, masks, curves, tables.

Beside it the audit sheet, a page of synthetic pictures to tick (`ml.pipeline.audit_sheet`), and
summary.json, by which the next report says what changed. No model is run here; what an earlier
version's folders do not hold is said in its place. Not here: the page's parts
(`ml.pipeline.report`).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ml.images.png import jpeg_uri
from ml.metrics.protocol_two import COLUMNS, SEGMENTERS
from ml.pipeline import audit, marks
from ml.pipeline.audit_sheet import audit_items
from ml.pipeline.audited import audited
from ml.pipeline.report import cards, changes, classes, figures, graph, segmented
from ml.pipeline.scored import WORDS, read_reliability
from ml.pipeline.table import STAGE, Output
from ml.pipeline.workspace import TIMING, Workspace
from ml.settings.params import Params
from ml.store.files import atomic, read_note, write_json
from ml.store.manifest import Manifest, read_manifest
from ml.store.shards import read_frame
from ml.store.stage_places import folder_of
from ml.words.cells import CELLS
from ml.words.vocabulary import Vocabulary, load_vocabulary

Context = dict[str, Any]


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes `report.html`, `audit.html` and `summary.json`.

    Facts: the pages' sizes in bytes, the contact sheets in the first, the pictures to tick in the
    second.
    """
    folders = {name: workspace.folder(name) for name in STAGE["report"].inputs}
    manifests = {name: read_manifest(folder, verify=False) for name, folder in folders.items()}
    settings = manifests["prompts"].params
    vocabulary = load_vocabulary(settings["vocabulary"])
    items = audit_items(workspace, vocabulary, settings["seed"])
    judged = {stage: audited(workspace, stage) for stage in marks.PICTURES}
    precision = judged[audit.STAGE].all
    now = changes.summarize(manifests, precision and precision["precision"])
    last = folder_of(workspace.data, "report")  # which stands until this one is whole
    summary = changes.with_before(now, last)
    sheets = [
        (f"{name}: {sheet.stem.replace('_', ' ')}", jpeg_uri(sheet.read_bytes()))
        for name, folder in folders.items()
        for sheet in sorted(folder.glob("*.jpg"))
    ]
    page = _template("report.html.j2").render(
        profile=params.profile,
        vocabulary=vocabulary.name,
        seen=vocabulary.seen,
        unseen=vocabulary.unseen,
        labelled=vocabulary.labelled,
        own=manifests["triplets"].facts.get("labelled"),
        detector_masks=_detector_masks(manifests["triplets"]),
        cells=list(CELLS),
        cell_names={key: cell.report for key, cell in CELLS.items()},
        changes=summary["before"] and changes.differences(now, summary["before"]),
        judged=judged,
        sheets=sheets,
        audit_pictures=len(items),
        **_scores(manifests, vocabulary, judged[audit.STAGE].rows),
        **_looks(workspace, manifests, vocabulary),
        **_making(workspace, folders, manifests),
    )
    ticks = _template("audit.html.j2").render(
        profile=params.profile,
        digest=manifests[audit.STAGE].digest,
        items=items,
        verdicts=marks.VERDICTS,
        z=audit.Z,
    )
    folder = workspace.folder("report")
    write_json(folder / changes.FILE, summary)
    for name, text in (("report.html", page), ("audit.html", ticks)):
        with atomic(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
    return Output(
        {
            "bytes": len(page.encode(errors="replace")),
            "audit_bytes": len(ticks.encode(errors="replace")),
            "pictures": len(sheets),
            "audit_pictures": len(items),
        }
    )


def _detector_masks(triplets: Manifest) -> int | None:
    """Accepted masks of training pictures that the detector found; None of an earlier version."""
    own: int | None = triplets.facts.get("subsets", {}).get("train", {}).get("accepted")
    return own


def _template(name: str) -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template(name)


def _scores(
    manifests: Mapping[str, Manifest], vocabulary: Vocabulary, judged: list[dict]
) -> Context:
    """What the scoring stages found. judged: precision by class of the synthetic set."""
    facts = {name: manifest.facts for name, manifest in manifests.items()}
    grounding, segmentation = facts["grounding_scores"], facts["benchmark_scores"]
    return {
        "tiles": _tiles(manifests, grounding, segmentation),
        "protocol_one": [
            (title, grounding[key], grounding.get("intervals", {}).get(key, {}))
            for title, key in (("this module", "ours"), ("DAAM, its best threshold", "daam"))
        ],
        "columns": COLUMNS,
        "column_names": {name: name for name in COLUMNS},
        "benchmark_pictures": segmentation.get("pictures", _rows(manifests["benchmark"])),
        "benchmark_name": segmentation.get("benchmark", "the frozen benchmark"),
        "no_bound": facts["real_bound"].get("why", ""),
        "unscored": segmentation.get("unscored_classes", []),
        "held_out": segmentation.get("held_out_synthetic", False),
        "protocol_two": [
            (title, segmentation[key], segmentation[key].get("intervals", {}))
            for key, title in SEGMENTERS.items()
            if key in segmentation
        ],
        "class_chart": Markup(figures.class_chart(segmentation, vocabulary.unseen, "classes")),
        "class_columns": classes.COLUMNS,
        "class_rows": classes.class_rows(vocabulary, facts, judged),
        "promotion": facts["promotion"],
    }


def _looks(
    workspace: Workspace, manifests: Mapping[str, Manifest], vocabulary: Vocabulary
) -> Context:
    """Curves of masks, and pictures worth a look."""
    folder = workspace.folder("grounding_scores")
    scores = read_frame(folder / "scores.parquet")
    curves = {"seen", "iou_daam"} <= set(scores.columns)
    found = read_reliability(folder)
    labels = {name: vocabulary.label(name) for name in vocabulary.classes}
    held_out = manifests["benchmark_scores"].facts.get("held_out_synthetic", False)
    return {
        "iou_curves": Markup(figures.iou_curves(scores, "ious")) if curves else "",
        "reliability": Markup(figures.reliability_diagram(found, "sure")) if found else "",
        "calibration": [(words, found[words]) for words in WORDS if words in found],
        "worst": cards.worst_cards(workspace, scores),
        "worst_pictures": segmented.worst_pictures(workspace, vocabulary, held_out),
        "rejections": [
            (
                "triplets",
                manifests["triplets"].facts.get("rejected"),
                cards.rejected_triplets(workspace),
            ),
            (
                audit.STAGE,
                manifests[audit.STAGE].facts.get("by_reason"),
                cards.rejected_synthetic(workspace, labels),
            ),
        ],
    }


def _making(
    workspace: Workspace, folders: Mapping[str, Path], manifests: Mapping[str, Manifest]
) -> Context:
    """How the run went: the graph with its times, the trainings."""
    seconds = {name: _seconds(workspace, name) for name in manifests}
    inputs = {name: stage.inputs for name, stage in STAGE.items() if name in manifests}
    return {
        "graph": Markup(graph.draw_graph(inputs, seconds)),
        "duration": graph.duration,
        "total_seconds": sum(seconds.values()),
        "stages": [
            {
                "name": name,
                "rows": _rows(manifest),
                "digest": manifest.digest,
                "seconds": seconds[name],
            }
            for name, manifest in manifests.items()
        ],
        "curves": [
            (name, Markup(figures.training_curve(folder / "curve.csv", f"training-{name}")))
            for name, folder in folders.items()
            if (folder / "curve.csv").is_file()
        ],
    }


def _seconds(workspace: Workspace, stage: str) -> float:
    """Wall time in which the stage was made; 0 for a folder that was pulled, not made here."""
    timing = read_note(workspace.state(stage) / "timing.json", TIMING)
    return float(timing["seconds"]) if timing else 0.0


def _rows(manifest: Manifest) -> int:
    """Rows in all shards of a stage."""
    return sum(entry.get("rows", 0) for entry in manifest.files.values())


def _tiles(
    manifests: Mapping[str, Manifest], grounding: dict, segmentation: dict
) -> list[tuple[str, str, str]]:
    """(title, number, remark) of the tiles at the page's top, from the stages' facts."""

    def show(value: float | None) -> str:
        return "–" if value is None or math.isnan(value) else f"{value:.1f}"

    scores = segmentation["synthetic"]
    judged = "held-out synthetic" if segmentation.get("held_out_synthetic") else "Protocol II"
    return [
        ("pictures drawn", f"{_rows(manifests['images'])}", "for training and judging"),
        ("synthetic set", f"{_rows(manifests['synthetic_dataset'])}", "labelled by the model"),
        ("two unseen objects", show(grounding["ours"].get("two_unseen")), "mIoU, Protocol I"),
        ("DAAM there", show(grounding["daam"].get("two_unseen")), "same pictures"),
        ("segmenter, harmonic", show(scores.get("harmonic")), f"mIoU, {judged}"),
        ("segmenter, unseen", show(scores.get("unseen")), "classes nobody labelled"),
    ]
