"""`python -m ml prove --profile sd15`: the paper's main table, cut down, on your machine.

Runs the graph with the profile's models on some 400 training and 400 synthetic pictures of one of
the paper's splits, holds the scores of Protocol I against the paper's with tolerances that were
stated beforehand (`ml/cli/proof.py`), and writes them with device, versions and revisions to a JSON
file. The graph is the usual one, in a profile of its own (`<profile>-proof`, a file in data/): a
run that was stopped goes on when the same command is given. Without a benchmark, segmenters are
scored on held-out synthetic pictures, which the paper has no number for.
"""

import dataclasses
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from ml.arguments import add_profile, add_root, make_parser, number
from ml.cli.proof import DAAM_TOLERANCE, PAPER, TOLERANCE, Judgement, judge, overall
from ml.compute.versions import versions
from ml.errors import DONE
from ml.pipeline.runner import run_stage
from ml.pipeline.table import STAGES
from ml.pipeline.workspace import Workspace
from ml.settings.params import Params
from ml.settings.profile import ROOT, load_params
from ml.store.files import atomic, read_note, write_json
from ml.store.manifest import read_manifest
from ml.words.cells import CELLS

DOCUMENT = ROOT / "docs" / "full-size-proof.json"
ONE = 0.4
"""Share of pictures with one object, as in the shipped profiles."""


def main(arguments: list[str]) -> int:
    """Runs what is left to run, prints the table and writes the file; returns the exit code."""
    parser = make_parser("python -m ml prove", __doc__)
    add_profile(parser, default="sd15")
    parser.add_argument("--split", choices=list(PAPER), default="voc-1", help="default voc-1")
    many = number(int, 10, 1_000_000)
    parser.add_argument("--pictures", type=many, default=400, help="of each set (default 400)")
    parser.add_argument("--per-cell", type=many, default=60, help="judged ones (default 60)")
    steps = number(int, 1, 1_000_000)
    parser.add_argument("--steps", type=steps, default=4000, help="of both trainings (4,000)")
    parser.add_argument("--write", type=Path, default=DOCUMENT, help=f"default {DOCUMENT.name}")
    add_root(parser)
    chosen = parser.parse_args(arguments)
    refuse_others_file(chosen.write)
    base = load_params(chosen.profile)
    file = chosen.root / "data" / f"{base.profile}-proof.yaml"
    settings = cut_down(base, chosen.split, chosen.pictures, chosen.per_cell, chosen.steps)
    if not has_truth(base, Workspace(chosen.root, base.profile)):
        settings["benchmark"] = {"source": "none", "root": None}
    note_profile(file, {"base": _base(chosen.profile)} | settings)
    params, seconds = load_params(str(file)), {}
    for stage in STAGES:
        report = run_stage(stage.name, params, chosen.root)
        seconds[stage.name] = round(report.seconds, 1)
        print(f"{stage.name}: {report.seconds:.0f} s", flush=True)
    workspace = Workspace(chosen.root, params.profile)
    facts = read_manifest(workspace.folder("grounding_scores")).facts
    judgements = judge(chosen.split, facts)
    write_json(chosen.write, document(params, workspace, chosen.split, judgements, seconds))
    print(page(judgements))
    print(f"{overall(judgements)}; written to {chosen.write}")
    return DONE


def cut_down(base: Params, split: str, pictures: int, per_cell: int, steps: int) -> dict[str, Any]:
    """The settings in which a proof differs from its profile."""
    one = round(ONE * pictures)
    return {
        "vocabulary": split,
        "prompts": {
            "train_one": one,
            "train_two": pictures - one,
            "sim_per_cell": per_cell,
            "synthetic_one": one,
            "synthetic_two": pictures - one,
        },
        "grounding": {
            "steps": min(steps, base.grounding.steps),
            "evaluate_every": min(base.grounding.evaluate_every, max(1, steps // 8)),
        },
        "segmenter": {"steps": min(steps, base.segmenter.steps)},
    }


def has_truth(base: Params, workspace: Workspace) -> bool:
    """Whether the benchmark's data, if it needs any, is where its stage would look."""
    root = base.benchmark.root
    return root is None or Path(workspace.model(root)).exists()


def _base(profile: str) -> str:
    """As a `base:` names it: a file by its whole path, since the proof lies elsewhere."""
    return os.path.abspath(profile) if Path(profile).suffix in (".yaml", ".yml") else profile


def note_profile(file: Path, settings: dict[str, Any]) -> None:
    """Writes the proof's profile. Raises ValueError for a file there with other settings."""
    if file.exists() and yaml.safe_load(file.read_text(encoding="utf-8")) != settings:
        raise ValueError(
            f"{file} belongs to a proof with other settings: give the command that made it, or "
            "remove it; its stages are then made again where the settings differ"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file) as temporary:
        temporary.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")


def refuse_others_file(path: Path) -> None:
    """Raises ValueError when there is a file at the path that no proof wrote."""
    if path.exists() and (read_note(path, dict) or {}).get("verdict") is None:
        raise ValueError(
            f"--write {path}: expected a new file or an older proof, which has a verdict"
        )


def document(
    params: Params,
    workspace: Workspace,
    split: str,
    judgements: list[Judgement],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """What is written: all that somebody else needs to weigh the verdict."""
    import torch

    scores = read_manifest(workspace.folder("benchmark_scores")).facts
    return {
        "verdict": overall(judgements),
        "made": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "paper": f"arXiv 2301.05221, Table 1, PASCAL-sim, split {split}",
        "tolerance": {"ours_below": TOLERANCE, "daam_either_way": DAAM_TOLERANCE},
        "cells": [dataclasses.asdict(each) for each in judgements],
        "segmenters": {
            name: {key: scores[name].get(key) for key in ("seen", "unseen", "harmonic")}
            | {"scored_on": scores["benchmark"]}
            for name in ("synthetic", "real_upper_bound")
            if name in scores
        },
        "models": {
            name: {"model": section.model, "revision": section.revision}
            for name, section in (("diffusion", params.diffusion), ("detector", params.detector))
        },
        "settings": dataclasses.asdict(params),
        "versions": versions(),
        "seconds": seconds,
    }


def page(judgements: list[Judgement]) -> str:
    """The table as the terminal shows it."""
    lines = [f"{'mIoU %':<26} {'here':>6} {'95 %':>13} {'paper':>6} {'bounds':>13}"]
    for each in judgements:
        name = f"{each.method} {CELLS[each.cell].report}"
        score = "-" if each.score is None else f"{each.score:.1f}"
        interval = "-" if each.interval is None else "{:.1f}..{:.1f}".format(*each.interval)
        bounds = f"{each.low:.1f}..{each.high:.1f}"
        lines.append(
            f"{name:<26} {score:>6} {interval:>13} {each.paper:>6.1f} {bounds:>13}  {each.verdict}"
        )
    return "\n".join(lines)
