"""ml/pipeline/stages/images.py on a random-weight pipeline: what is stored, in which order,
resumed."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from ml.diffusion.sampling import sample
from ml.errors import OutOfMemory
from ml.images.png import decode_png
from ml.pipeline.stages import images
from ml.pipeline.workspace import Workspace
from ml.settings.profile import load_params
from ml.store.files import sha256_file
from ml.store.making import write_shards
from ml.store.schemas import IMAGES, PROMPTS
from ml.store.shards import read_shards
from tests.builders.tiny import save_tiny_pipeline

SETTINGS = {
    "scheduler": "DDIMScheduler",
    "steps": 2,
    "batch_size": 2,
    "device": "cpu",
    "model": "model",
}


def prompt(purpose: str, index: int, words: list[str], cell: str) -> dict:
    phrases = [f"a {word}" for word in words]
    return {
        "key": f"{purpose}-{index:06d}",
        "text": "a photograph of " + " and ".join(phrases),
        "entities": [word.replace(" ", "") for word in words],
        "words": words,
        "phrases": phrases,
        "seed": 100 + index,
        "purpose": purpose,
        "cell": cell,
    }


PROMPT_ROWS = [  # not in the order of the keys
    prompt("train", 3, ["dog", "cat"], "two_seen"),
    prompt("train", 1, ["dining table"], "one_seen"),
    prompt("train", 2, ["bus"], "one_seen"),
    prompt("synthetic", 5, ["car"], "one_unseen"),
    prompt("sim", 4, ["car", "dog"], "two_unseen"),
    prompt("sim", 0, ["horse"], "one_seen"),
]
ORDER = ["sim-000000", "sim-000004", "train-000001", "train-000002", "train-000003"]


@pytest.fixture(scope="module")
def params():
    base = load_params()
    return dataclasses.replace(
        base,
        diffusion=dataclasses.replace(base.diffusion, **SETTINGS),
        shards=dataclasses.replace(base.shards, size=3),
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    space = Workspace(tmp_path_factory.mktemp("root"), "micro")
    save_tiny_pipeline(space.root / "model")
    write_shards(space.folder("prompts"), "p", [PROMPT_ROWS], pd.DataFrame, PROMPTS)
    return space


@pytest.fixture(scope="module")
def output(params, workspace):
    return images.run(params, workspace, "recipe")


def test_every_train_and_sim_prompt_has_a_picture_in_the_order_of_keys(output, workspace):
    made = read_shards(workspace.folder("images"))
    assert list(made.columns) == IMAGES.names
    assert list(made["key"]) == ORDER
    asked = {row["key"]: row for row in PROMPT_ROWS}
    for row in made.to_dict("records"):
        for column in PROMPTS.names:
            value = row[column]
            assert (list(value) if isinstance(value, np.ndarray) else value) == asked[row["key"]][
                column
            ]
    assert output.rows == {"shard-00000.parquet": 3, "shard-00001.parquet": 2}


def test_what_is_stored_is_what_sampling_gave(output, params, workspace):
    pipe = images.load_pipeline(workspace.located(params.diffusion))
    for row in read_shards(workspace.folder("images")).to_dict("records"):
        alone = sample(
            pipe,
            [row["text"]],
            [row["seed"]],
            steps=2,
            guidance_scale=4.0,
            words=[list(row["words"])],
        )
        picture = decode_png(row["image"])
        assert np.abs(picture.astype(int) - alone.images[0]).max() <= 2
        assert (row["height"], row["width"]) == picture.shape[:2] == (64, 64)
        latent = np.frombuffer(row["latent"], "<f4").reshape(row["latent_shape"])
        np.testing.assert_allclose(latent, alone.latents[0], atol=2e-3)
        daam = np.frombuffer(row["daam"], "<f2").reshape(row["daam_shape"])
        assert daam.shape == (len(row["words"]), 16, 16)
        np.testing.assert_allclose(daam, alone.daam[0], rtol=2e-3, atol=2e-3)
        assert row["timestep"] == alone.timestep


def test_facts_and_contact_sheet(output, workspace):
    made = read_shards(workspace.folder("images"))
    facts = output.facts
    assert facts["pictures"] == 5
    assert facts["by_cell"] == {
        "sim/one_seen": 1,
        "sim/two_unseen": 1,
        "train/one_seen": 2,
        "train/two_seen": 1,
    }
    assert facts["mean_entropy"] == pytest.approx(made["entropy"].mean())
    assert facts["timestep"] == made["timestep"][0] and facts["latent_shape"] == [6, 16, 16]
    sheet = workspace.folder("images") / "contact_sheet.jpg"
    assert 0 < sheet.stat().st_size < 100_000


def test_a_resumed_run_gives_the_same_bytes_and_a_finished_one_loads_no_model(
    output, params, workspace, monkeypatch
):
    folder = workspace.folder("images")
    before = {path.name: sha256_file(path) for path in folder.glob("shard-*")}
    (folder / "shard-00001.parquet").unlink()
    assert images.run(params, workspace, "recipe") == output
    assert {path.name: sha256_file(path) for path in folder.glob("shard-*")} == before

    def no_model(*_):
        raise AssertionError("the model was loaded although every shard was in place")

    monkeypatch.setattr(images, "load_pipeline", no_model)
    assert images.run(params, workspace, "recipe") == output


def test_out_of_memory_halves_the_batch_and_goes_on(params, workspace, monkeypatch):
    sizes = []

    def small(pipe, prompts, *args, **kwargs):
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("batch too large")
        return sample(pipe, prompts, *args, **kwargs)

    monkeypatch.setattr(images, "sample", small)
    greedy = dataclasses.replace(
        params, diffusion=dataclasses.replace(params.diffusion, batch_size=5)
    )
    make = images.ShardMaker(greedy, workspace)
    rows = sorted(PROMPT_ROWS, key=lambda row: row["key"])[:5]
    made = make(rows)
    assert sizes == [5, 2, 2, 1]
    assert list(made["key"]) == [row["key"] for row in rows]
    assert make.batches.size == 2

    def never(*args, **kwargs):
        raise torch.OutOfMemoryError("no memory at all")

    monkeypatch.setattr(images, "sample", never)
    with pytest.raises(OutOfMemory, match="dtype"):
        make(rows)


def test_nothing_to_sample_is_an_error(params, tmp_path):
    space = Workspace(tmp_path, "micro")
    write_shards(space.folder("prompts"), "p", [[PROMPT_ROWS[3]]], pd.DataFrame, PROMPTS)
    with pytest.raises(ValueError, match="no prompts of purpose.*train_one"):
        images.run(params, space, "recipe")
