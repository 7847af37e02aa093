"""Study 2, Protocol III: words to masks on drawn scenes, against exact truth.

The paper's truth is its own detector. Here every pixel's truth is known, so that the masks, and
the detector as a judge, can both be checked.
"""

import pandas as pd

from ml.metrics.iou import binary_iou
from ml.studies.baselines import make_baselines
from ml.studies.blocks import Block, Row, Table, Text
from ml.studies.cell_scores import CELL_NAMES, cells, cells_apart, counted
from ml.studies.parallel import run_tasks
from ml.studies.protocol_one import trained_rows
from ml.studies.protocol_one_methods import BASELINES, TRAINED, spec_of
from ml.studies.records import INVERTED, NOISED
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import drawn_pictures
from ml.studies.trainings import train_all
from ml.words.cells import cell_of
from ml.words.vocabulary import load_vocabulary

TITLE = "Protocol III: exact truth on real scenes"
QUESTION = (
    "Does grounding hold on pictures that the diffusion model did not draw, and how far is "
    "a score by the detector, the paper's ground truth, from the true one?"
)
WAYS = {NOISED: "noise added", INVERTED: "DDIM-inverted"}
"""How a scene's latent is brought to the feature timestep."""
METHODS = TRAINED | {"contrast alone": BASELINES["contrast alone"]}


def make(run: StudyRun, only: str | None = None) -> None:
    """Shares the trainings of Protocol I, which scored the drawn scenes already."""
    train_all(
        run,
        [
            spec_of(method, split)
            for label, method in TRAINED.items()
            if only is None or only.startswith(label)
            for split in run.size.splits
        ],
    )
    run_tasks("baselines", [(make_baselines, run, split) for split in run.size.splits], run.workers)
    run_tasks("judge", [(judge_rows, run, split) for split in run.size.splits], run.workers)


def raw(run: StudyRun) -> pd.DataFrame:
    """Raw rows on drawn scenes, of both ways and both judges."""
    parts = []
    for split in run.size.splits:
        parts += [*trained_rows(run, split), make_baselines(run, split)]
    rows = pd.concat(parts, ignore_index=True)
    return rows[rows.source.isin(list(WAYS)) & rows.method.isin(list(METHODS.values()))]


def judge_rows(run: StudyRun, split: str) -> pd.DataFrame:
    """The detector's own masks against the truth, on scenes where it found every word."""
    recipe = run.recipe(counts=run.counts(), split=split, seed=run.params.seed, of="judge")
    return run.table(f"judge-{split}", recipe, lambda: _judge_rows(run, split))


def _judge_rows(run: StudyRun, split: str) -> pd.DataFrame:
    vocabulary = load_vocabulary(split)
    return pd.DataFrame(
        [
            {
                "method": "detector",
                "split": split,
                "seed": 0,
                "source": "drawn",
                "judge": "truth",
                "cell": cell_of(record.entities, vocabulary.unseen),
                "key": record.key,
                "entity": entity,
                "iou": binary_iou(found, true),
            }
            for record in drawn_pictures(run)
            if record.whole
            for entity, found, true in zip(record.entities, record.masks, record.truth, strict=True)
        ]
    )


def blocks(run: StudyRun) -> list[Block]:
    rows, n = raw(run), run.params.benchmark.bootstrap
    said: list[Block] = []
    for way, name in WAYS.items():
        true = rows[(rows.source == way) & (rows.judge == "truth")]
        said.append(
            Table(
                f"Against exact truth, {name}",
                CELL_NAMES,
                [
                    Row(f"{label}, {name}", cells(true[true.method == method], n))
                    for label, method in METHODS.items()
                    if (true.method == method).any()
                ],
                f"Scenes, splits added up: {counted(true)}",
            )
        )
    said.append(_gap(rows, n))
    own = pd.concat([judge_rows(run, split) for split in run.size.splits], ignore_index=True)
    scored = Row("the detector's own masks", cells(own, n))
    said.append(Table("The judge itself, against exact truth", CELL_NAMES, [scored]))
    scenes = drawn_pictures(run)
    missed = 100 * sum(not r.whole for r in scenes) / len(scenes)
    said.append(
        Text(
            f"In {missed:.1f} % of the scenes the detector has no accepted mask of some word: "
            "Protocol I never judges such a picture. Of generated pictures nobody knows the truth, "
            "so the gap is measured on scenes where both judges are at hand."
        )
    )
    return said


def _gap(rows: pd.DataFrame, resamples: int) -> Table:
    """The detector's score less the true one, of the same masks on the same scenes."""
    table = []
    for label, method in METHODS.items():
        for way, name in WAYS.items() if (rows.method == method).any() else ():
            own = rows[(rows.method == method) & (rows.source == way)]
            judged = own[own.judge == "detector"]
            true = own[(own.judge == "truth") & own.key.isin(set(judged.key))]
            table.append(
                Row(f"{label}, {name}: detector - truth", cells_apart(judged, true, resamples))
            )
    return Table(
        "How far the detector's score is from the true one (points)",
        CELL_NAMES,
        table,
        "The same masks, on the scenes where the detector found every word; above 0 the "
        "detector's score flatters.",
    )
