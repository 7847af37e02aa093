"""Study 4: what the method depends on, one setting at a time, on split 1.

Every row is the default module (or, where the paper's own table is about it, the paper's) with one
thing changed: the same pictures, steps and seeds.
"""

from dataclasses import dataclass, field

import pandas as pd

from ml.studies.blocks import Block, Cell, Plot, Row, Table, Text
from ml.studies.cell_scores import CELL_NAMES, cells
from ml.studies.records import NOISED
from ml.studies.scores import mean_iou
from ml.studies.sizes import FRACTIONS
from ml.studies.specs import Spec
from ml.studies.study_run import StudyRun
from ml.studies.training_sets import judged_pictures, training_set
from ml.studies.trainings import done, rows_of, train_all
from ml.words.cells import CELLS

TITLE = "Ablations"
QUESTION = (
    "Which denoising step, which labels, how many seen classes and pictures does it take, "
    "and what is each part of the module worth?"
)
REAL = {"real_seen": "real, seen", "real_unseen": "real, unseen"}
"""Columns of exact truth on drawn scenes with noise, one- and two-object scenes together."""
PAPER_BY_TIMESTEP = {  # read off the paper's figure, +-1
    "one_seen": (90.5, 91, 90.5, 90, 87.5, 77.5, 60),
    "one_unseen": (83, 82, 83.5, 83, 77, 68, 56),
    "two_seen": (80, 80.5, 80, 79.5, 73, 55, 30),
    "two_mixed": (68, 69, 67, 67, 62, 44, 23),
    "two_unseen": (57.5, 59, 55, 57, 53.5, 37, 13),
}
PAPER_EMPTY = {
    False: (90.16, 83.19, 78.93, 66.07, 57.93),  # Table 3
    True: (89.88, 71.18, 77.66, 57.24, 44.22),
}
PICTURES = (0.25, 0.5, 1.0)  # of Size.fixed
LONGER = 3
"""Times the studies' training steps: as long as the pipeline's own trainings, about."""


@dataclass(frozen=True)
class Group:
    """A table: row label -> specification, and the paper's five cells of the row."""

    title: str
    rows: dict[str, Spec]
    paper: dict[str, tuple] = field(default_factory=dict)
    note: str = ""


def groups(run: StudyRun) -> list[Group]:
    fixed = run.size.fixed
    steps, training = run.params.diffusion.steps, run.params.grounding.steps
    places = sorted({max(1, round(share * steps)) for share in FRACTIONS})
    timesteps = {
        f"step {step} of {steps} from the last": Spec(place=i) for i, step in enumerate(places)
    }
    return [
        Group(
            "Feature timestep",
            timesteps,
            {
                label: tuple(PAPER_BY_TIMESTEP[cell][i] for cell in CELLS)
                for i, label in enumerate(timesteps)
            }
            if len(places) == len(FRACTIONS)
            else {},
            "The paper's own: steps 1, 5, 10, 20, 30, 40, 50 of 50, read off its figure.",
        ),
        Group(
            "Words without a mask",
            {
                "paper's module, skipped": Spec(variant="paper"),
                "paper's module, empty targets": Spec(variant="paper", empty_masks=True),
            },
            {
                "paper's module, skipped": PAPER_EMPTY[False],
                "paper's module, empty targets": PAPER_EMPTY[True],
            },
        ),
        Group(
            "Number of seen classes",
            {f"{seen} seen classes": Spec(seen=seen, pictures=fixed) for seen in (5, 10, 15)},
            note=f"{fixed} training pictures each. All other classes of the 20 are unseen, so the "
            "unseen columns are not of the same classes. The paper's counterpart is COCO-sim "
            "(one, unseen: 72.4 with 5 seen classes of 80, 76.8 with 65).",
        ),
        Group(
            "U-Net resolutions",
            {
                "all: 4, 8 and 16": Spec(),
                "8 and 16": Spec(resolutions=(8, 16)),
                "16 alone": Spec(resolutions=(16,)),
            },
            note="The convolutions that join resolutions go with them: 16 alone has none.",
        ),
        Group(
            "Parts of the module",
            {
                "default": Spec(),
                "text never hidden": Spec(text_dropout=0.0),
                "evidence has no say between words": Spec(settles=False),
                "the paper's module": Spec(variant="paper"),
                "the paper's module, the default's upsampling": Spec(
                    variant="paper", learned_upsampling=True
                ),
            },
            note="The paper's module differs from the default in more than its query: also in "
            "normalisation, upsampling, loss and optimiser. On Stable Diffusion's features "
            "neither would have learned upsampling.",
        ),
        Group(
            "Length of the training",
            {
                f"{name}, {longer * training} steps": Spec(variant=variant, longer=longer)
                for variant, name in (("seeded", "default"), ("paper", "paper's module"))
                for longer in (1, LONGER)
            },
            note="The other studies train both modules for the fewer steps.",
        ),
        Group(
            "Source of the labels",
            {
                "generated pictures, detector": Spec(),
                "real pictures with noise, exact masks": Spec(labels="noised"),
                "real pictures DDIM-inverted, exact masks": Spec(labels="inverted"),
            },
            note="The paper names DDIM inversion of real pictures as its other way; its figures "
            "are not published.",
        ),
        Group(
            "Number of training pictures",
            {
                f"{round(share * fixed)} pictures": Spec(pictures=round(share * fixed))
                if share < 1
                else Spec(seen=15, pictures=fixed)
                for share in PICTURES
            }
            | {"all pictures": Spec()},
        ),
    ]


def make(run: StudyRun, only: str | None = None) -> None:
    chosen = [
        spec for group in groups(run) for label, spec in group.rows.items() if only in (None, label)
    ]
    train_all(run, chosen)


def row_cells(run: StudyRun, spec: Spec, paper: tuple = ()) -> dict[str, Cell]:
    """Protocol I's five cells, and exact truth on drawn scenes where it was scored."""
    rows, n = rows_of(run, spec), run.params.benchmark.bootstrap
    judged = rows[(rows.source == "generated") & (rows.judge == "detector")]
    return cells(judged, n, paper) | _real(rows, n)


def _real(rows: pd.DataFrame, resamples: int) -> dict[str, Cell]:
    true = rows[(rows.source == NOISED) & (rows.judge == "truth")]
    parts = {
        "real_seen": true[true.cell.isin(["one_seen", "two_seen"])],
        "real_unseen": true[true.cell.isin(["one_unseen", "two_unseen"])],
    }
    return {name: mean_iou(own, resamples) for name, own in parts.items() if len(own)}


def blocks(run: StudyRun) -> list[Block]:
    made: list[Block] = []
    for group in groups(run):
        table = [
            Row(label, row_cells(run, spec, group.paper.get(label, ())))
            for label, spec in group.rows.items()
            if done(run, spec)
        ]
        if not table:
            continue
        real = any("real_seen" in row.cells for row in table)
        made.append(Table(group.title, CELL_NAMES | (REAL if real else {}), table, group.note))
        if (axis := _axis(run, group)) is not None:
            made.append(_plot(group, table, *axis))
    return [*made, Text(_empties(run))]


def _axis(run: StudyRun, group: Group) -> tuple[str, dict[str, float]] | None:
    """What a group's rows are a function of, for a plot: its name, and the number of each row."""
    if group.title == "Feature timestep":
        timesteps = judged_pictures(run)[0].timesteps
        return "timestep, 0 is the finished picture", {
            label: timesteps[spec.place] for label, spec in group.rows.items()
        }
    if group.title == "Number of training pictures":
        return "training pictures", {
            label: len(training_set(run, spec)) for label, spec in group.rows.items()
        }
    return None


def _plot(group: Group, table: list[Row], x: str, places: dict[str, float]) -> Plot:
    """The five cells of the rows that are made, over the number of each."""
    return Plot(
        group.title,
        x,
        "mIoU, %",
        {
            name: [
                (float(places[row.label]), row.cells[cell].value, row.cells[cell].spread or 0.0)
                for row in table
                if cell in row.cells
            ]
            for cell, name in CELL_NAMES.items()
        },
    )


def _empties(run: StudyRun) -> str:
    samples = training_set(run, Spec(empty_masks=True))
    words = sum(len(s.words) for s in samples)
    empty = sum(rle == "" for s in samples for rle in s.rles)
    masked = sum(any(s.rles) for s in samples)
    return (
        f"Split 1 has {len(samples)} generated pictures of seen classes to learn from, "
        f"{masked} of them with an accepted mask: all pictures, above. "
        f"Of the {words} words {empty} have no mask ({100 * empty / words:.1f} %): that is all "
        "that empty targets can spoil here. The paper does not say how many it had."
    )
