"""Which studies there are, in their order; a study made and saved for the page, or one row.

What a study compares is in its own module, `ml.studies.<name>`, imported when it is needed: this
one loads where no torch is, for Dagster's definitions.
"""

import importlib
import time
from types import ModuleType
from typing import TYPE_CHECKING

from ml.store.locks import FolderLock

if TYPE_CHECKING:
    from ml.studies.saved import Saved
    from ml.studies.study_run import StudyRun

ABOUT = {
    "protocol_one": "Protocol I: masks of words on generated pictures, beside attention maps.",
    "protocol_three": "The same on drawn scenes, judged by exact truth instead of a detector.",
    "zero_shot": "Protocol II: segmenters from synthetic sets, and how many pictures they need.",
    "ablations": "Timestep, empty masks, seen classes, resolutions, variants, labels, pictures.",
    "limits": "Two unseen objects, the paper's weakest cell: which classes are confused, and why.",
    "beyond_nouns": "Colours and relations: which of two objects of one class is meant.",
    "absent_words": "Words that the picture does not show: false masks, and a presence score.",
    "few_labels": "Unseen words taught by 1, 5 and 20 labelled pictures: a query, or the module.",
    "backbones": "U-Net against diffusion transformer, and which of its blocks ground words.",
}
"""Name of a study's module -> what it asks, in a line."""
STUDIES = tuple(ABOUT)


def study(name: str) -> ModuleType:
    """A study's module: TITLE, QUESTION, make(run, only), blocks(run).

    Raises ValueError for a name that is not of STUDIES.
    """
    if name not in ABOUT:
        raise ValueError(f"unknown study {name!r}: expected one of {', '.join(STUDIES)}")
    return importlib.import_module(f"ml.studies.{name}")


def command(run: "StudyRun", name: str = "", label: str = "") -> str:
    """The command that makes all studies, a study, or what a row of it needs."""
    import shlex

    parts = ["python -m ml.studies"] + ["--quick"] * (run.size.name == "quick")
    parts += [f"--study {name}"] * bool(name) + [f"--row {shlex.quote(label)}"] * bool(label)
    return " ".join(parts)


def make_study(run: "StudyRun", name: str) -> tuple["Saved", float]:
    """Makes what is missing of a study and saves its blocks. Gives them and the minutes it took.

    A study that was stopped goes on where it was; one that is finished only reads. Raises
    WorkspaceBusy while another process makes studies of the same run.
    """
    from ml.studies.saved import Saved, save

    started, module = time.perf_counter(), study(name)
    with FolderLock(run.folder, "studies") as lock:
        lock.write()
        module.make(run)
        saved = Saved(module.TITLE, module.QUESTION, tuple(module.blocks(run)))
        save(run, name, saved)
    return saved, (time.perf_counter() - started) / 60


def make_row(run: "StudyRun", name: str, label: str) -> list:
    """Makes what one row needs. Gives the study's tables that have it, with that row alone.

    Nothing is saved for the page: the other rows may not be there yet. Raises ValueError, with the
    labels there are, when no table has the row.
    """
    from dataclasses import replace

    from ml.studies.blocks import Table

    module = study(name)
    with FolderLock(run.folder, "studies") as lock:
        lock.write()
        module.make(run, only=label)
    tables = [block for block in module.blocks(run) if isinstance(block, Table)]
    found = [
        replace(table, rows=[row for row in table.rows if row.label == label])
        for table in tables
        if label in [row.label for row in table.rows]
    ]
    if not found:
        labels = dict.fromkeys(row.label for table in tables for row in table.rows)
        raise ValueError(
            f"study {name} has no row {label!r}: expected one of "
            f"{', '.join(map(repr, labels)) or 'none yet'}"
        )
    return found
