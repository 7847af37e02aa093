"""Study 1, Protocol I: masks of words on generated pictures, judged by the detector as in the
paper's Table 1. Five cells, three splits; the baselines need no training.
"""

import pandas as pd

from ml.studies import queries
from ml.studies.baselines import make_baselines
from ml.studies.blocks import Block, Picture, Row, Table, Text
from ml.studies.cell_scores import CELL_NAMES, cells, counted
from ml.studies.parallel import run_tasks
from ml.studies.protocol_one_methods import BASELINES, TRAINED, spec_of
from ml.studies.protocol_one_sheet import ON_THE_SHEET, draw_sheet
from ml.studies.study_run import StudyRun
from ml.studies.trainings import done, have_modules, rows_of, train_all
from ml.words.vocabulary import load_vocabulary

TITLE = "Protocol I: words to masks on generated pictures"

QUESTION = (
    "Does a small module trained on the masks of a few seen classes ground words better "
    "than the diffusion model's own attention, also words that it never trained on?"
)

PAPER = {  # Table 1, PASCAL-sim: split -> the five cells in the order of CELLS
    ("the paper's module", "voc-1"): (90.16, 83.19, 78.93, 66.07, 57.93),
    ("the paper's module", "voc-2"): (90.08, 86.19, 78.68, 67.10, 47.21),
    ("the paper's module", "voc-3"): (90.67, 79.86, 79.68, 70.42, 62.07),
    ("the paper's module", "all"): (90.30, 83.08, 79.10, 67.86, 55.74),
    ("DAAM, best threshold", "voc-1"): (61.66, 75.63, 46.74, 51.31, 69.94),
    ("DAAM, best threshold", "voc-2"): (65.75, 59.25, 49.08, 47.98, 41.50),
    ("DAAM, best threshold", "voc-3"): (67.11, 53.82, 48.80, 48.28, 41.41),
    ("DAAM, best threshold", "all"): (64.84, 62.90, 48.21, 49.19, 50.95),
}


def make(run: StudyRun, only: str | None = None) -> None:
    """Trains and scores the modules on every split, and the baselines."""
    specs = [
        spec_of(method, split)
        for label, method in TRAINED.items()
        if only in (None, label)
        for split in run.size.splits
    ]
    train_all(run, specs)
    if only is None or only in BASELINES:
        run_tasks(
            "baselines", [(make_baselines, run, split) for split in run.size.splits], run.workers
        )
    if only is None or only.startswith("OVAM"):
        queries.make(run)
    if only is None:
        have_modules(run, [spec_of(method, run.size.splits[0]) for method in ON_THE_SHEET])
        draw_sheet(run)


def raw(run: StudyRun) -> pd.DataFrame:
    """All raw rows of the study that are made: trained variants and baselines, all splits."""
    parts, known = [], queries.made(run)
    for split in run.size.splits:
        parts += trained_rows(run, split)
        parts += [make_baselines(run, split)] + ([queries.rows(run, split)] if known else [])
    return pd.concat(parts, ignore_index=True)


def trained_rows(run: StudyRun, split: str) -> list[pd.DataFrame]:
    """Raw rows of the trained modules that are made, `method` as in TRAINED."""
    return [
        rows_of(run, spec_of(method, split)).assign(method=method)
        for method in TRAINED.values()
        if done(run, spec_of(method, split))
    ]


def blocks(run: StudyRun) -> list[Block]:
    rows, n = raw(run), run.params.benchmark.bootstrap
    rows = rows[(rows.source == "generated") & (rows.judge == "detector")]
    made: list[Block] = []
    for split in ("all", *run.size.splits):
        own = rows if split == "all" else rows[rows.split == split]
        table = [
            Row(label, cells(own[own.method == method], n, PAPER.get((label, split))))
            for label, method in (TRAINED | BASELINES).items()
            if (own.method == method).any()
        ]
        title = "Mean over the splits" if split == "all" else _split_title(split)
        made.append(Table(title, CELL_NAMES, table, _note(own, split)))
    made.append(
        Text(
            "OVAM's optimised queries have seen one labelled picture of every class, so that no "
            "class is unseen for them. DAAM and OVAM have the attention of all steps of the "
            "sampling run; the contrast comes from three noised passes over the finished picture. "
            "Best thresholds are those of seen training pictures."
        )
    )
    picture = run.folder / "sheets" / "protocol_one.jpg"
    if picture.is_file():
        made.append(
            Picture(
                "Judged pictures of split 1, two unseen words where there are: our "
                "default, the paper's module, DAAM at its best threshold, and the "
                "detector that judges. The first word is pink, the second blue.",
                picture.read_bytes(),
            )
        )
    return made


def _split_title(split: str) -> str:
    return f"Split {split[-1]}: unseen are {', '.join(load_vocabulary(split).unseen)}"


def _note(rows: pd.DataFrame, split: str) -> str:
    shown = counted(rows[rows.method == "daam"])
    if split == "all":
        return f"Pictures, splits added up: {shown}"
    thresholds = rows.groupby("method").threshold.first()
    return (
        f"Pictures: {shown}. Thresholds: DAAM {thresholds['daam']:.2f}, "
        f"contrast {thresholds['contrast']:.2f}."
    )
