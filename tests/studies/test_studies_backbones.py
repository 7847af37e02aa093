"""The study of U-Net and transformer: its two runs, its specifications, and rows of known maps."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from ml.images.run_lengths import encode_rle
from ml.studies import backbone_rows, backbones, concept_maps
from ml.studies.backbone_rows import alone, labels_of, runs, together
from ml.studies.backbone_tables import of_both, verdict_of_pairs
from ml.studies.blocks import Cell, Row, Table
from ml.studies.cell_scores import CELL_NAMES
from ml.studies.study_run import open_run
from ml.words.vocabulary import load_vocabulary
from tests.studies.test_studies_words import record


def test_the_transformers_run_has_its_own_folder_model_and_recipes(tmp_path):
    run = open_run("quick", tmp_path, 1)
    own, other = runs(run).values()
    assert own is run and own.params.diffusion.model.endswith("diffusion")
    assert other.folder == run.folder / "micro-dit"
    assert other.params.diffusion.model.endswith("transformer")
    assert other.params.diffusion.scheduler == "FlowMatchEulerDiscreteScheduler"
    assert other.params.diffusion.steps == run.params.diffusion.steps
    assert other.params.grounding.evidence_timesteps != run.params.grounding.evidence_timesteps
    assert other.params.grounding.steps == run.params.grounding.steps
    assert run.recipe() != other.recipe() == dataclasses.replace(other).recipe()


def test_blocks_are_tried_alone_and_spread_over_the_depth():
    assert [spec.blocks for spec in alone(3).values()] == [(0,), (1,), (2,)]
    chosen = {label: spec.blocks for label, spec in together(5).items()}
    assert chosen == {
        "1 of 5 blocks: 5": (4,),
        "2 of 5 blocks: 2, 5": (1, 4),
        "3 of 5 blocks: 1, 3, 5": (0, 2, 4),
        "4 of 5 blocks: 1, 2, 3, 5": None,  # what is taken everywhere else
        "5 of 5 blocks: 1, 2, 3, 4, 5": (0, 1, 2, 3, 4),
        "3 of 5 blocks: 3, 4, 5": (2, 3, 4),
    }
    assert len({spec.name for spec in (alone(5) | together(5)).values()}) == 10  # 1 of 5 is block 5
    assert "U-Net: ConceptAttention" not in labels_of("U-Net")
    assert "transformer: ConceptAttention" in labels_of("transformer")


def test_concept_rows_are_of_the_block_that_knows_and_of_thresholds_of_seen_pictures(monkeypatch):
    mask = np.zeros((64, 64), bool)
    mask[16:48, 16:48] = True
    seen = load_vocabulary("voc-1").seen[0]
    own = dataclasses.replace(record((seen,)), rles=(encode_rle(mask),))
    knows = torch.full((2, 16, 16), -9.0)
    knows[0, 4:12, 4:12] = 9.0
    others = knows[1:].expand(len(concept_maps.BACKGROUNDS), -1, -1)
    knows = torch.cat([knows[:1], others])
    products = torch.stack([-knows, knows])  # block 0 says the opposite, block 1 is right
    sets = {"threshold": [own], "judged": [own]}
    monkeypatch.setattr(concept_maps, "_read", lambda run, name, records: [products])
    rows = pd.DataFrame(concept_maps._rows(open_run("quick"), "voc-1", sets))
    iou = rows.groupby("method").iou.first()
    assert iou["concept-1"] > 0.9 and iou["concept-0"] < 0.1
    assert iou["concept"] == iou["concept-1"]  # both blocks' mean says nothing
    assert rows[rows.method == "concept"].blocks.unique() == ["1"]


def table(values: dict[str, dict[str, Cell]]) -> Table:
    return Table("t", CELL_NAMES, [Row(label, cells) for label, cells in values.items()])


def test_rows_of_the_transformer_that_were_taken_over_are_enough(tmp_path, monkeypatch):
    run = open_run("quick", tmp_path, 1)
    rows = pd.DataFrame({"method": ["seeded", "daam", "concept-2", "block 3 of 5"], "iou": 0.5})
    rows["precision"] = "bfloat16"
    run.table(backbone_rows.KEPT, backbone_rows._recipe(run), lambda: rows)

    def never(*_):
        raise AssertionError("made again")

    for name in ("_train", "run_tasks", "keep_rows"):
        monkeypatch.setattr(backbones, name, never)
    monkeypatch.setattr(backbones, "runs", lambda run: {"transformer": runs(run)["transformer"]})
    backbones.make(run)
    own = backbone_rows.method_rows(run, "transformer")
    assert list(own.method) == ["seeded", "daam", "concept-2"]
    assert backbone_rows.precision(run, "transformer") == "bfloat16"
    assert backbone_rows.precision(run, "U-Net") is None
    probed = backbone_rows.probe_rows(run, alone(5))
    assert [len(found) for found in probed.values()] == [0, 0, 1, 0, 0]


def test_pictures_of_their_own_are_compared_where_both_drew_the_words():
    theirs = pd.DataFrame({"key": ["a", "a", "b"], "iou": [1.0, 0.5, 0.2]})
    ours = pd.DataFrame({"key": ["b", "c"], "iou": [0.4, 0.6]})
    both = of_both({"U-Net": theirs, "transformer": ours})
    assert list(both["U-Net"].iou) == [0.2] and list(both["transformer"].iou) == [0.4]
    none = {"U-Net": theirs, "transformer": ours[:0]}
    assert of_both(none) == none


def test_a_paired_verdict_counts_only_what_is_beyond_chance():
    said = verdict_of_pairs(
        table(
            {
                "our default": {
                    "one_seen": Cell(-3.0, None, -5.0, -1.0),
                    "one_unseen": Cell(-3.0, None, -7.0, 1.0),
                    "two_seen": Cell(2.0, None, 1.0, 3.0),
                    "two_mixed": Cell(4.0, 1.0, 1.0, 7.0),  # Student: 4.0 ± 2.5 of three trainings
                    "two_unseen": Cell(-5.0, 2.1, -9.0, -1.0),  # -5.0 ± 5.2
                }
            }
        ),
        3,
    )
    assert said.count("our default") == 3 and "(-3.0)" in said and "(+2.0)" in said
    assert "(+4.0)" in said and "(-5.0)" not in said
    with pytest.raises(ValueError, match="run ml.studies.concept_maps.make first"):
        concept_maps._read(open_run("quick"), "nothing", [])
