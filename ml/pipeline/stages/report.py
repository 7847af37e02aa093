"""Stage `report`: one self-contained HTML page of the run, with pictures, masks, curves, tables.

Beside it the audit sheet, a page of synthetic pictures to tick (`ml.pipeline.audit_sheet`). Both
only show what the other stages wrote; no score is computed here.
"""

import base64
import io
import math
from pathlib import Path

import jinja2
import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from ml.images.plots import LITERAL, label
from ml.images.png import jpeg_uri
from ml.metrics.protocol_two import COLUMNS, SEGMENTERS
from ml.pipeline import audit
from ml.pipeline.audit_sheet import audit_items
from ml.pipeline.table import STAGE, Output
from ml.pipeline.workspace import TIMING, Workspace
from ml.settings.params import Params
from ml.store.files import atomic, read_note
from ml.store.manifest import Manifest, read_manifest
from ml.words.cells import CELLS
from ml.words.vocabulary import load_vocabulary

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  the backend must be chosen first


def run(params: Params, workspace: Workspace, recipe: str) -> Output:
    """Writes `report.html` and `audit.html`.

    Facts: their sizes in bytes, the pictures in the first, the pictures to tick in the second.
    """
    folders = {name: workspace.folder(name) for name in STAGE["report"].inputs}
    manifests = {name: read_manifest(folder, verify=False) for name, folder in folders.items()}
    facts = {name: manifest.facts for name, manifest in manifests.items()}
    settings = manifests["prompts"].params
    vocabulary = load_vocabulary(settings["vocabulary"])
    grounding, segmentation = facts["grounding_scores"], facts["benchmark_scores"]
    sheets = [
        (f"{name}: {sheet.stem.replace('_', ' ')}", jpeg_uri(sheet.read_bytes()))
        for name, folder in folders.items()
        for sheet in sorted(folder.glob("*.jpg"))
    ]
    items = audit_items(workspace, vocabulary, settings["seed"])
    page = _template("report.html.j2").render(
        profile=params.profile,
        vocabulary=vocabulary.name,
        seen=vocabulary.seen,
        unseen=vocabulary.unseen,
        tiles=_tiles(manifests, grounding, segmentation),
        cells=list(CELLS),
        cell_names={key: cell.report for key, cell in CELLS.items()},
        protocol_one=[
            (label, grounding[key], grounding.get("intervals", {}).get(key, {}))
            for label, key in (("this module", "ours"), ("DAAM, its best threshold", "daam"))
        ],
        columns=COLUMNS,
        benchmark_pictures=segmentation.get("pictures", _rows(manifests["benchmark"])),
        benchmark_name=segmentation.get("benchmark", "the frozen benchmark"),
        no_bound=facts["real_bound"].get("why", ""),
        unscored=segmentation.get("unscored_classes", []),
        held_out=segmentation.get("held_out_synthetic", False),
        protocol_two=[
            (title, segmentation[key]) for key, title in SEGMENTERS.items() if key in segmentation
        ],
        per_class_chart=_per_class_chart(segmentation, vocabulary.unseen),
        promotion=facts["promotion"],
        curves=[
            (name, _curve(folders[name] / "curve.csv"))
            for name in folders
            if (folders[name] / "curve.csv").is_file()
        ],
        stages=[
            {
                "name": name,
                "rows": _rows(manifest),
                "digest": manifest.digest,
                "seconds": _seconds(workspace, name),
            }
            for name, manifest in manifests.items()
        ],
        sheets=sheets,
        audit_pictures=len(items),
    )
    ticks = _template("audit.html.j2").render(
        profile=params.profile,
        digest=manifests[audit.STAGE].digest,
        items=items,
        verdicts=audit.VERDICTS,
        z=audit.Z,
    )
    sizes = {}
    for name, text in (("report.html", page), ("audit.html", ticks)):
        with atomic(workspace.folder("report") / name) as temporary:
            temporary.write_text(text, encoding="utf-8", errors="replace")
        sizes[name] = len(text.encode())
    return Output(
        {
            "bytes": sizes["report.html"],
            "audit_bytes": sizes["audit.html"],
            "pictures": len(sheets),
            "audit_pictures": len(items),
        }
    )


def _template(name: str) -> jinja2.Template:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(text)


def _seconds(workspace: Workspace, stage: str) -> float:
    """Wall time in which the stage was made; 0 for a folder that was pulled, not made here."""
    timing = read_note(workspace.state(stage) / "timing.json", TIMING)
    return timing["seconds"] if timing else 0.0


def _rows(manifest: Manifest) -> int:
    """Rows in all shards of a stage."""
    return sum(entry.get("rows", 0) for entry in manifest.files.values())


def _tiles(
    manifests: dict[str, Manifest], grounding: dict, segmentation: dict
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


def _figure_uri(figure: Figure) -> str:
    """A data URI of the figure as SVG; the figure is closed."""
    buffer = io.BytesIO()
    # Without a date and with fixed ids, so that the same run gives the same page.
    with matplotlib.rc_context(LITERAL | {"svg.hashsalt": "report"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    pyplot.close(figure)
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _curve(path: Path) -> str:
    """Loss, and validation mIoU beside it where the training has one."""
    with path.open() as file:
        frame = pd.read_csv(file)
    figure, axis = pyplot.subplots(figsize=(9, 2.6))
    loss = frame.dropna(subset=["loss"])
    axis.plot(loss["step"], loss["loss"], color="#4a7fb5", label="loss")
    axis.set_xlabel("step")
    axis.set_ylabel("loss")
    if "val_miou" in frame and frame["val_miou"].notna().any():
        other, scored = axis.twinx(), frame.dropna(subset=["val_miou"])
        other.plot(scored["step"], scored["val_miou"], "o-", color="#d9622b")
        other.set_ylabel("validation mIoU, %")
    return _figure_uri(figure)


def _per_class_chart(segmentation: dict, unseen: tuple[str, ...]) -> str:
    """A bar a class and model; "" where no class has a score."""
    names = {"synthetic": "synthetic", "real_upper_bound": "real bound"}
    frame = pd.DataFrame(
        {name: segmentation[key]["per_class"] for key, name in names.items() if key in segmentation}
    )
    if frame.empty:
        return ""
    frame.index = [label(name, 40) + " *" * (name in unseen) for name in frame.index]
    with matplotlib.rc_context(LITERAL):  # a text keeps the settings it was created under
        figure, axis = pyplot.subplots(figsize=(9, 3.2))
        frame.plot.bar(ax=axis, color=["#d9622b", "#b9c4cd"][: frame.shape[1]], width=0.8)
    axis.set_ylabel("IoU, %")
    axis.set_ylim(0, 100)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    return _figure_uri(figure)
