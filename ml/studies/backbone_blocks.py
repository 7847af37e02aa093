"""Tables of the study `backbones` about the transformer alone: its blocks, and what our
default makes of its features."""

import pandas as pd

from ml.diffusion.backbones.mmdit import TAPS
from ml.studies.backbone_rows import (
    alone,
    block_count,
    concept_labels,
    late_steps,
    probe_rows,
    runs,
    together,
    without,
)
from ml.studies.backbone_tables import rows_from
from ml.studies.blocks import Block, Row, Table
from ml.studies.cell_scores import CELL_NAMES, cells
from ml.studies.concept_maps import CONCEPT
from ml.studies.records import GENERATED
from ml.studies.specs import Spec
from ml.studies.study_run import StudyRun

FEATURES_ALONE = (
    "The paper's module, which is given nothing but the features; their number of channels differs "
    "with that of the blocks."
)


def block_tables(run: StudyRun, rows: pd.DataFrame) -> list[Block]:
    """rows: the transformer's, of every method."""
    count = block_count(runs(run)["transformer"])
    return [
        _trained(run, "Features of one block alone, split 1", alone(count), FEATURES_ALONE),
        _trained(
            run,
            "Features of several blocks, split 1",
            together(count),
            f"{FEATURES_ALONE} Blocks count from 1; so many spread over the depth, the last among "
            f"them, and the deeper half. Everywhere else {TAPS} of them are taken, so spread.",
        ),
        _concepts(run, rows_from(rows, GENERATED, "all"), count),
        _trained(
            run,
            "Features of a late denoising step, split 1",
            late_steps(run),
            "Everywhere else features are the last step's, as the U-Net's are; in a transformer's "
            "last step there is hardly any noise left.",
        ),
        _trained(
            run,
            "Parts of the module, split 1",
            without(),
            "A transformer's features have one resolution: nothing is joined, and without the "
            "block of convolutions the encoder is one projection. Without the evidence's say the "
            "contrast does not decide which word a place belongs to.",
        ),
    ]


def _trained(run: StudyRun, title: str, specs: dict[str, Spec], note: str) -> Table:
    table = [
        Row(label, cells(rows_from(own, GENERATED, "all"), run.params.benchmark.bootstrap))
        for label, own in probe_rows(run, specs).items()
    ]
    return Table(title, CELL_NAMES, table, note)


def _concepts(run: StudyRun, rows: pd.DataFrame, count: int) -> Table:
    """ConceptAttention's maps of each block."""
    table = [
        Row(label, cells(rows[rows.method == method], run.params.benchmark.bootstrap))
        for label, method in concept_labels(count).items()
        if (rows.method == method).any()
    ]
    note = ""
    if table:
        own = rows[rows.method == CONCEPT].groupby("split").blocks.first()
        chosen = (
            f"{' and '.join(str(int(block) + 1) for block in text.split())} in split {split[-1]}"
            for split, text in own.items()
        )
        note = (
            "Mean over the splits. Some eighty seen training pictures a split choose the threshold "
            "and whether a pixel is its strongest word's alone; DAAM and the contrast choose a "
            "threshold, on all of them. The row ConceptAttention further above is the mean of the "
            f"blocks in a row that do best on those pictures: {', '.join(chosen)}."
        )
    return Table("ConceptAttention of one block alone", CELL_NAMES, table, note)
