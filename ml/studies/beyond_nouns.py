"""Study 6, beyond nouns: does a mask follow a colour, or a relation, between two of one class?

Here: the tables. Scenes are in `relation_scenes`, answers in `beyond_nouns_rows`.
"""

import numpy as np
import pandas as pd

from ml.studies.asking import CONTRAST, SPECS, contrast_threshold
from ml.studies.beyond_nouns_rows import make_part, part_recipe, parts, raw_part
from ml.studies.beyond_nouns_sheet import draw_sheet, sheet_path
from ml.studies.blocks import Block, Picture, Row, Table, Text
from ml.studies.parallel import run_tasks
from ml.studies.relation_scenes import COLOUR, LEFT, RIGHT
from ml.studies.scores import figure, ratio, sums
from ml.studies.study_run import StudyRun
from ml.studies.trainings import have_modules, train_all

TITLE = "Beyond nouns: colours and relations"

QUESTION = (
    'Two objects of one class stand in a picture: does the mask of "red car" fall on the '
    'red one, and that of "car" in "a car left of a dog" on the one to the left?'
)

METHODS = (*SPECS, CONTRAST)


def make(run: StudyRun, only: str | None = None) -> None:
    """Rows of all methods, whatever row is asked for, and a sheet of generated pictures."""
    train_all(run, list(SPECS.values()))
    have_modules(run, list(SPECS.values()))
    threshold = contrast_threshold(run)
    run_tasks(
        "beyond nouns", [(make_part, run, number, threshold) for number in parts(run)], run.workers
    )
    sheet = sheet_path(run)
    if not run.in_place(sheet, part_recipe(run, "sheet")):
        with run.making(sheet, part_recipe(run, "sheet")):
            draw_sheet(run, sheet)


def blocks(run: StudyRun) -> list[Block]:
    rows = pd.concat([raw_part(run, number) for number in parts(run)], ignore_index=True)
    resamples = run.params.benchmark.bootstrap
    note = (
        "Accuracy: words whose mask has a higher IoU with the object that is named than with "
        "the other of its class; chance is 50."
    )
    return [
        Table(
            'Colours: "a photograph of a red car and a blue car" (%)',
            _COLUMNS,
            _table(rows, [COLOUR], resamples),
            note,
        ),
        Table(
            'Relations: "a car left of a dog", a car on either side (%)',
            _COLUMNS,
            [
                row
                for relation in (LEFT, RIGHT)
                for row in _table(rows, [relation], resamples, relation)
            ],
            note,
        ),
        Text(
            "The micro model was trained on captions that name the colour of a fifth of their "
            "objects, and on 10,000 scenes of two objects of one class whose captions name both "
            'colours; on "left of" and "right of" in an eighth of its captions of two objects; '
            "and on no caption with a relation among three."
        ),
        Picture(
            "Generated pictures of two objects of one class, masks of our module (seed 0), in "
            "the order of the words; no truth is known here.",
            sheet_path(run).read_bytes(),
        ),
    ]


_COLUMNS = {"right": "accuracy", "named": "IoU with the named", "other": "IoU with the other"}


def _table(rows: pd.DataFrame, kinds: list[str], resamples: int, relation: str = "") -> list[Row]:
    made = []
    for method in METHODS:
        own = rows[(rows.method == method) & rows.kind.isin(kinds)]
        cells = {c: figure([means(own, c)], ratio, resamples) for c in _COLUMNS}
        made.append(Row(f"{method}, {relation}" if relation else f"{method}, colours", cells))
    return made


def means(rows: pd.DataFrame, column: str) -> np.ndarray:
    """(seeds,pictures,2): sum of the column and number of rows of each picture."""
    return sums(rows, rows[column], np.ones(len(rows)))
