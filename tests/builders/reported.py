"""A finished run by hand for the report: with scores, masks, marks, a champion, and with words that
mean something to a browser where `spiteful`."""

from pathlib import Path

import numpy as np
import pandas as pd

from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.metrics.iou import binary_iou
from ml.pipeline.marks import Mark, add_marks, picture_sha256
from ml.pipeline.scored import Scored
from ml.pipeline.stages import report
from ml.pipeline.workspace import Workspace
from ml.store.manifest import Manifest, describe_files, read_manifest, write_manifest
from ml.store.schemas import SYNTHETIC, TRIPLETS
from ml.store.shards import read_frame, read_shards
from ml.store.sidecars import shard_files
from ml.words.vocabulary import load_vocabulary
from tests.builders import handmade

SPITE = '<img src=x onerror="window.hit=1"> & "$x$" </script>'
"""A class of a vocabulary as somebody may write it."""


def make(root: Path) -> Workspace:
    """Every stage but the report, whose folder is only a name."""
    workspace = handmade.all_stages(root)
    score(workspace)
    score_segmenter(workspace)
    handmade.write_verdict(workspace)
    judge(workspace)
    return workspace


def write_again(workspace: Workspace, stage: str, **changed) -> None:
    """The stage's manifest with other fields, and its files as they are now."""
    folder = workspace.folder(stage)
    made = read_manifest(folder, verify=False)
    fields = {"params": made.params, "inputs": made.inputs, "facts": made.facts} | changed
    rows = {name: entry["rows"] for name, entry in made.files.items() if "rows" in entry}
    files = describe_files(folder, rows)
    write_manifest(folder, Manifest(made.stage, made.version, files=files, **fields))


def score(workspace: Workspace) -> None:
    """Masks of the sim pictures that are the truth moved by up to nine pixels, and their scores."""
    seen = load_vocabulary("voc-1").seen
    rows = read_shards(workspace.folder("triplets"))
    rows = rows[rows.purpose == "sim"]
    kept, table, rng = Scored(), [], np.random.default_rng(0)
    for place, row in enumerate(rows.itertuples()):
        true = decode_rle(row.rle)
        mask = np.roll(true, place % 10, axis=1)
        soft = np.clip(0.8 * mask + rng.normal(0.1, 0.05, mask.shape), 0, 1)
        kept.add(row.key, row.entity, row.entity in seen, mask, soft, true)
        table.append(
            {
                "key": row.key,
                "cell": row.cell,
                "entity": row.entity,
                "seen": row.entity in seen,
                "iou_ours": binary_iou(mask, true),
                "iou_daam": binary_iou(np.roll(true, 12, axis=1), true),
            }
        )
    folder = workspace.folder("grounding_scores")
    pd.DataFrame(table).to_parquet(folder / "scores.parquet", index=False)
    kept.write(folder)
    facts = handmade.grounding_facts() | {"calibration_error": kept.errors}
    write_again(workspace, "grounding_scores", facts=facts)


def score_segmenter(workspace: Workspace) -> None:
    """Of the benchmark's first ten pictures: right about a pixel in ten of the first one, two in
    ten of the second, and so on."""
    labels = read_shards(workspace.folder("benchmark"), ["key", "label"]).iloc[:10]
    rows = []
    for place, (key, data) in enumerate(zip(labels.key, labels.label, strict=True), start=1):
        counts = np.zeros((21, 21), np.int64)
        for label in set(np.unique(decode_png(data)).tolist()) - {255}:
            counts[label, label], counts[label, 0] = 10 * place, 100 - 10 * place
        rows.append({"key": key, "model": "synthetic", "confusion": counts.ravel()})
    file = workspace.folder("benchmark_scores") / "scores.parquet"
    pd.DataFrame(rows[::-1]).to_parquet(file, index=False)
    write_again(workspace, "benchmark_scores")


def judge(workspace: Workspace, count: int = 12) -> None:
    """Marks on the first pictures of the synthetic set, three in four of them right, and one on a
    picture that is not there."""
    columns = ["key", "image", "entities"]
    rows = read_shards(workspace.folder("synthetic_dataset"), columns).iloc[:count]
    verdicts = ("right", "right", "wrong mask", "right")
    marks = [
        Mark("synthetic_dataset", picture_sha256(row.image), row.key, row.entities[0], verdict)
        for row, verdict in zip(rows.itertuples(), verdicts * count, strict=False)
    ]
    add_marks(workspace, [*marks, Mark("synthetic_dataset", "0" * 64, "gone", "dog", "right")])


def spiteful(workspace: Workspace) -> None:
    """Has "dog" renamed to SPITE wherever a class, a word or a prompt is shown."""

    def named(name: str) -> str:
        return SPITE if name == "dog" else name

    def of_rows(rows: pd.DataFrame) -> pd.DataFrame:
        texts = [text.replace("dog", SPITE) for text in rows.text]
        singular = {name: rows[name].map(named) for name in ("entity", "word") if name in rows}
        plural = {
            name: [[named(each) for each in own] for own in rows[name]]
            for name in ("entities", "words")
            if name in rows
        }
        return rows.assign(text=texts, **singular, **plural)

    def first_rejected(rows: pd.DataFrame) -> pd.DataFrame:
        rows = of_rows(rows)
        own = rows.index[(rows.entity == SPITE) & (rows.purpose == "train")][:3]
        rows.loc[own, ["accepted", "reason"]] = False, "too_small"
        return rows

    for stage, change, schema in (
        ("triplets", first_rejected, TRIPLETS),
        ("synthetic_dataset", of_rows, SYNTHETIC),
    ):
        folder = workspace.folder(stage)
        for shard in shard_files(folder):
            rows = change(read_frame(shard))
            rows.to_parquet(shard, schema=schema, index=False)
        write_again(workspace, stage)
    scores = pd.read_parquet(workspace.folder("grounding_scores") / "scores.parquet")
    scores["entity"] = scores.entity.map(named)
    scores.loc[scores.entity == SPITE, "iou_ours"] /= 10
    scores.to_parquet(workspace.folder("grounding_scores") / "scores.parquet", index=False)
    facts = handmade.segmenter_facts()
    for own in facts.values():
        own["per_class"] = {named(name): value for name, value in own["per_class"].items()}
    write_again(workspace, "benchmark_scores", facts=facts)
    verdicts = read_manifest(workspace.folder("promotion"), verify=False).facts
    for verdict in verdicts.values():
        verdict["reason"] += f" {SPITE}"
    write_again(workspace, "promotion", facts=verdicts)
    voc = load_vocabulary("voc-1")
    file = workspace.root / "spite.yaml"
    lines = {"seen": [*map(named, voc.seen)], "unseen": [*map(named, voc.unseen)]}
    file.write_text(f"name: spite\n{''.join(f'{k}: {v!r}' + chr(10) for k, v in lines.items())}")
    made = read_manifest(workspace.folder("prompts"), verify=False)
    write_again(workspace, "prompts", params=made.params | {"vocabulary": str(file)})


def write_report(workspace: Workspace, folder: Path) -> dict:
    """The report of what is there, whatever its recipe, into another folder; its facts."""
    folder.mkdir(parents=True, exist_ok=True)
    own = Workspace(workspace.root, workspace.profile, "report", folder)
    return report.run(handmade.params_of(workspace), own, "by hand").facts
