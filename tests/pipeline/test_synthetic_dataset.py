"""Label maps out of probabilities, the filter, and the stage on a tiny diffusion model."""

import numpy as np
import pytest

from ml.images.png import decode_png
from ml.images.run_lengths import decode_rle
from ml.pipeline.stages import synthetic_dataset
from ml.pipeline.stages.synthetic_dataset import label_map, reject_reason
from ml.settings.profile import load_params
from ml.store.shards import read_shards
from ml.words.vocabulary import load_vocabulary
from tests.pipeline.test_grounding_stages import make_workspace, tiny_params

BAND = [0.35, 0.65]


def label_of(probabilities: list[float], competition: bool = True) -> int:
    pixel = np.array(probabilities, np.float32)[:, None, None]
    return int(label_map(pixel, [7, 9][: len(pixel)], BAND, competition)[0, 0])


@pytest.mark.parametrize(
    "probabilities, label",
    [
        ([0.9], 7),
        ([0.1], 0),
        ([0.34], 0),
        ([0.36], 255),  # within the band
        ([0.64], 255),
        ([0.66], 7),
        ([0.05, 0.9], 9),
        ([0.1, 0.1], 0),  # the background holds 0.8
        ([0.45, 0.5], 255),  # an object for sure, but which?
        ([0.33, 0.33], 255),  # nobody holds more than 0.34
        ([0.2, 0.22], 255),  # the background wins with 0.58: too little
    ],
)
def test_competing_pixel(probabilities, label):
    assert label_of(probabilities) == label


@pytest.mark.parametrize(
    "probabilities, label",
    [
        ([0.3, 0.3], 0),  # independent: the background holds 0.7
        ([0.9, 0.8], 7),
        ([0.5, 0.1], 255),
    ],
)
def test_independent_pixel(probabilities, label):
    assert label_of(probabilities, competition=False) == label


def test_first_reason_that_holds():
    params = load_params().synthetic
    assert reject_reason([0.2, 0.1], 0.05, False, params) == ""
    assert reject_reason([0.2, 0.0], 0.05, False, params) == "entity too small"
    assert reject_reason([0.2], 0.9, False, params) == "too uncertain"
    assert reject_reason([0.0], 0.9, True, params) == "benchmark overlap"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic")
    params, workspace = tiny_params(root), make_workspace(root)
    return params, workspace, synthetic_dataset.run(params, workspace, "recipe")


def test_rows_of_the_stage(made):
    params, workspace, output = made
    vocabulary = load_vocabulary(params.vocabulary)
    rows = read_shards(workspace.folder("synthetic_dataset"))
    prompts = read_shards(workspace.folder("prompts"))
    assert list(rows.key) == list(prompts.key[prompts.purpose == "synthetic"])
    assert output.rows == {"shard-00000.parquet": 4, "shard-00001.parquet": 1}
    for row in rows.itertuples():
        label = decode_png(row.label)
        allowed = {0, 255} | {vocabulary.label(e) for e in row.entities}
        assert label.shape == (64, 64) and set(np.unique(label)) <= allowed
        shares = [(label == vocabulary.label(e)).mean() for e in row.entities]
        assert list(row.areas) == pytest.approx(shares)
        assert row.ignored == pytest.approx((label == 255).mean())
        assert row.accepted == (row.reason == "")
        masks = [decode_rle(text) for text in row.rles]
        for entity, mask in zip(row.entities, masks, strict=True):
            assert mask[label == vocabulary.label(entity)].all()  # the label lies in the mask
    facts = output.facts
    assert facts["pictures"] == 5
    assert facts["accepted"] + sum(facts["by_reason"].values()) == 5
    assert (workspace.folder("synthetic_dataset") / "contact_sheet.jpg").stat().st_size < 100_000


def test_a_leaked_benchmark_picture_is_flagged(made):
    """The workspace's benchmark holds the picture that the second synthetic prompt gives."""
    _, workspace, output = made
    rows = read_shards(workspace.folder("synthetic_dataset"))
    assert rows.benchmark_overlap.tolist() == [False, True, False, False, False]
    assert rows.reason[1] == "benchmark overlap" and not rows.accepted[1]
    assert output.facts["benchmark_overlap"] == 1


def test_resumed_shards_are_the_same_bytes(made):
    params, workspace, _ = made
    folder = workspace.folder("synthetic_dataset")
    before = {p.name: p.read_bytes() for p in folder.glob("shard-*.parquet")}
    (folder / "shard-00001.parquet").unlink()
    synthetic_dataset.run(params, workspace, "recipe")
    assert {p.name: p.read_bytes() for p in folder.glob("shard-*.parquet")} == before
