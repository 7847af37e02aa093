"""`python -m orchestration.summary [--profile micro]`: a finished run's results on one page.

Writes `data/<profile>/summary.json` from the stages' own files and prints the scores, the promoted
models, the report's path and what to look at next. It computes no score itself.
"""

import shlex
import sys
from pathlib import Path

from ml.arguments import add_profile, add_workspace, make_parser
from ml.errors import exit_path
from ml.metrics.protocol_two import COLUMNS, SEGMENTERS
from ml.pipeline.table import STAGES
from ml.pipeline.workspace import TIMING, Workspace
from ml.settings.params import Params
from ml.settings.profile import ROOT, load_params
from ml.store.files import read_note, write_json
from ml.store.manifest import read_manifest
from ml.words.cells import CELLS
from orchestration.home import home_of
from orchestration.mlflow.tracking import resolve


def timings(workspace: Workspace) -> tuple[dict[str, float], float]:
    """Seconds that each stage took (all checks together as `checks`), and the peak memory in MB.

    A stage that was found done counts with the seconds of the run that made it.
    """
    seconds, peak, checks = {}, 0.0, 0.0
    for stage in STAGES:
        state = workspace.state(stage.name)
        if timing := read_note(state / "timing.json", TIMING):
            seconds[stage.name] = round(timing["seconds"], 2)
            peak = max(peak, timing["peak_rss_mb"])
        if verdict := read_note(state / "quality.json", {"seconds": (int, float)}):
            checks += verdict["seconds"]
    return seconds | {"checks": round(checks, 2)}, round(peak, 1)


def summarize(workspace: Workspace, champions: dict[str, str] | None) -> dict:
    """The content of summary.json. Raises ManifestError when a scores stage has not finished."""
    grounding = read_manifest(workspace.folder("grounding_scores"), verify=False).facts
    segmentation = read_manifest(workspace.folder("benchmark_scores"), verify=False).facts
    seconds, peak = timings(workspace)
    return {
        "grounding": {
            method: {cell: grounding[method].get(cell) for cell in CELLS}
            for method in ("ours", "daam")
        },
        "segmentation": {
            kind: {column: segmentation[kind].get(column) for column in COLUMNS}
            for kind in SEGMENTERS
            if kind in segmentation
        }
        | {
            key: segmentation[key]
            for key in ("benchmark", "held_out_synthetic")
            if key in segmentation
        },
        "champion": {name: (champions or {}).get(name) for name in ("grounding", "segmenter")},
        "wall_seconds": {"total": round(sum(seconds.values()), 2)} | seconds,
        "peak_rss_mb": peak,
    }


def table(title: str, columns: list[str], rows: list[tuple[str, list[float | None]]]) -> str:
    """A plain text table; None becomes a dash."""
    wide = max(len(name) for name, _ in rows) + 2
    lines = [title, " " * wide + "".join(f"{column:>21}" for column in columns)]
    for name, values in rows:
        cells = "".join(f"{'-' if v is None else format(v, '.1f'):>21}" for v in values)
        lines.append(f"{name:<{wide}}{cells}")
    return "\n".join(lines)


def promoted(champions: dict[str, str] | None) -> str:
    """Which models hold the title, in words."""
    if champions is None:
        return "no registry yet: the stage `promotion` makes it under Dagster (`make run`)"
    return ", ".join(f"{name} {champions.get(name, 'none')}" for name in ("grounding", "segmenter"))


def page(
    summary: dict,
    champions: dict[str, str] | None,
    workspace: Workspace,
    unchanged: bool,
    where: dict[str, str],
) -> str:
    """What is printed at the end of a run. where: the variables of make that name its registry."""
    grounding, segmentation = summary["grounding"], summary["segmentation"]
    methods = {"ours": "this module", "daam": "DAAM, best threshold"}
    title = f"segmenter on {segmentation.get('benchmark', 'the frozen benchmark')}, mIoU %"
    title = (
        "NO REAL BENCHMARK: " if segmentation.get("held_out_synthetic") else "Protocol II: "
    ) + title
    minutes = summary["wall_seconds"]["total"] / 60
    spent = "nothing had to be done; it was made" if unchanged else "made"
    report = workspace.folder("report") / "report.html"
    registry = " ".join(["make mlflow", *(f"{k}={shlex.quote(v)}" for k, v in where.items() if v)])
    return "\n".join(
        [
            "",
            table(
                "Protocol I: words to masks, mIoU %",
                [cell.report for cell in CELLS.values()],
                [(label, list(grounding[key].values())) for key, label in methods.items()],
            ),
            "",
            table(
                title,
                list(COLUMNS),
                [
                    (label, list(segmentation[key].values()))
                    for key, label in SEGMENTERS.items()
                    if key in segmentation
                ],
            ),
            "",
            f"Promoted: {promoted(champions)}",
            f"Report:   {report}" + ("" if report.is_file() else " (not made yet)"),
            f"Time:     {spent} in {minutes:.1f} min, {summary['peak_rss_mb']:.0f} MB at most",
            f"Look:     `make ui` opens the graph and its history, `{registry}` the registry",
            "",
        ]
    )


def champions_of(
    registry: tuple[str, str | None], params: Params, workspace: Workspace
) -> dict[str, str] | None:
    """The champions' URIs; None when the registry (`tracking.resolve`) was never made."""
    uri, artifacts = registry
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        return None
    from orchestration.mlflow.registry import Registry

    return Registry(uri, artifacts, params, workspace).champions()


@exit_path
def main(arguments: list[str] | None = None) -> int:
    parser = make_parser("python -m orchestration.summary", __doc__)
    add_profile(parser)
    add_workspace(parser)
    parser.add_argument("--tracking-uri", help="of MLflow, when not <root>/mlflow.db")
    chosen = parser.parse_args(arguments)
    params = load_params(chosen.profile)
    registry = resolve(chosen.tracking_uri or "", "", home_of(str(chosen.root)))
    workspace = Workspace(chosen.root, params.profile)
    champions = champions_of(registry, params, workspace)
    summary = summarize(workspace, champions)
    path = workspace.data / "summary.json"
    # A stage that is made again leaves another time: an equal summary means that nothing was made.
    unchanged = read_note(path, dict) == summary
    write_json(path, summary)
    root = "" if chosen.root == ROOT else str(chosen.root)
    where = {"ROOT": root, "TRACKING_URI": chosen.tracking_uri}
    print(page(summary, champions, workspace, unchanged, where))
    return 0


if __name__ == "__main__":
    sys.exit(main())
