"""The pipeline on a tiny diffusion model: what it returns, and that pictures stand alone."""

import json

import numpy as np
import pytest
import torch

from ml.diffusion.loading import read_pipeline, set_scheduler
from ml.grounding.engine import GroundingEngine
from ml.grounding.pipeline import GroundedDiffusionPipeline
from ml.grounding.prompting import compose_prompt
from ml.words.phrases import phrase_of
from tests.builders.grounded import make_engine, make_pipeline

PROMPTS = ["a photograph of a dog and a cat", "a photograph of a dining table"]
WORDS = [["dog", "cat"], ["dining table"]]


def draw(grounded: GroundingEngine, prompts=PROMPTS, words=WORDS, seeds=(3, 4)):
    return grounded.draw(prompts, words, seeds=list(seeds), steps=3, guidance_scale=3.0)


@pytest.mark.parametrize("variant", ["paper", "seeded"])
def test_draws_and_masks(variant):
    made = draw(make_engine(variant))
    assert made.images.shape == (2, 64, 64, 3) and made.images.dtype == np.uint8
    assert [m.shape for m in made.masks] == [(2, 64, 64), (1, 64, 64)]
    assert [p.shape for p in made.probabilities] == [(2, 64, 64), (1, 64, 64)]
    assert made.masks[0].dtype == bool and made.probabilities[0].dtype == np.float32
    assert all(0 <= p.min() and p.max() <= 1 for p in made.probabilities)


def test_a_picture_does_not_depend_on_its_batch():
    grounded = make_engine(batch_size=2)
    together = draw(grounded)
    alone = draw(grounded, PROMPTS[1:], WORDS[1:], [4])
    assert np.abs(together.images[1].astype(int) - alone.images[0]).max() <= 1
    assert np.abs(together.probabilities[1] - alone.probabilities[0]).max() < 0.02


def test_given_pictures_stand_alone():
    grounded = make_engine()
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    words = [["dog"], ["cat", "red bus"], ["aeroplane"]]
    found = grounded.ground(images, words)
    last = grounded.ground(images[2:], words[2:])
    assert [m.shape for m in found.masks] == [(1, 64, 64), (2, 64, 64), (1, 64, 64)]
    assert np.abs(found.probabilities[2] - last.probabilities[0]).max() < 1e-4
    other = grounded.ground(images[2:], words[2:], prompts=["a dog near an aeroplane"])
    assert np.abs(other.probabilities[0] - last.probabilities[0]).max() > 1e-4


def test_saved_pipeline_is_the_same(tmp_path):
    grounded = make_pipeline()
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    grounded.save_pretrained(tmp_path / "copy")
    again = GroundedDiffusionPipeline.from_pretrained(tmp_path / "copy")
    grounded.save_pretrained(tmp_path / "reference", str(tmp_path / "copy" / "diffusion"))
    referring = GroundedDiffusionPipeline.from_pretrained(tmp_path / "reference")
    assert not (tmp_path / "reference" / "diffusion").exists()
    expected = grounded.ground(picture, ["dog"]).probabilities[0]["dog"]
    for other in (again, referring):
        found = other.ground(picture, ["dog"]).probabilities[0]["dog"]
        assert np.allclose(expected, found, atol=1e-5)
        assert (other.num_inference_steps, other.guidance_scale) == (3, 3.0)


def test_prompts_out_of_words():
    assert compose_prompt(["dog"]) == "a photograph of a dog"
    assert compose_prompt(["dog", "aeroplane"]) == "a photograph of a dog and an aeroplane"
    assert compose_prompt(["dog", "cat", "bus"]) == "a photograph of a dog, a cat and a bus"
    with pytest.raises(ValueError, match="at least one"):
        compose_prompt([])


@pytest.mark.parametrize(
    "prompt, word, phrase",
    [
        ("a photograph of a dining table", "dining table", "a dining table"),
        ("An aeroplane near the bus", "aeroplane", "An aeroplane"),
        ("An aeroplane near the bus", "bus", "the bus"),
        ("a cattle near a cat", "cat", "a cat"),
        ("a red car on grass", "car", "car"),
    ],
)
def test_phrase_of_a_word(prompt, word, phrase):
    assert phrase_of(prompt, word) == phrase


def test_errors_say_what_to_do(tmp_path):
    grounded = make_engine()
    with pytest.raises(ValueError, match="'sheep' is not in the prompt"):
        draw(grounded, words=[["sheep"], ["dining table"]])
    with pytest.raises(ValueError, match="2 prompts, 2 entities, 1 seeds"):
        draw(grounded, seeds=[1])
    with pytest.raises(ValueError, match="at least one word"):
        draw(grounded, words=[["dog"], []])
    with pytest.raises(ValueError, match="resize them to 64x64"):
        grounded.ground(np.zeros((1, 32, 32, 3), np.uint8), [["dog"]])
    with pytest.raises(ValueError, match="save_pretrained"):
        GroundedDiffusionPipeline.from_pretrained(tmp_path)


def test_a_saved_pipeline_draws_with_its_scheduler(tmp_path, capsys):
    """Not with the one that the checkpoint came with; an older one says what it draws with."""
    fresh = make_pipeline()
    fresh.pipe.save_pretrained(tmp_path / "checkpoint", safe_serialization=True)
    pipe = read_pipeline(tmp_path / "checkpoint", None, torch.float32)
    came_with = type(pipe.scheduler).__name__
    assert came_with != "HeunDiscreteScheduler"
    set_scheduler(pipe, "HeunDiscreteScheduler")  # as `load_pipeline` does by the profile
    grounded = GroundedDiffusionPipeline(pipe, fresh.module)
    capsys.readouterr()
    expected = draw(grounded.engine).images
    grounded.save_pretrained(tmp_path / "saved", str(tmp_path / "checkpoint"))
    again = GroundedDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert np.array_equal(draw(again.engine).images, expected)
    file = tmp_path / "saved" / "pipeline.json"
    reference = json.loads(file.read_text())
    assert reference.pop("scheduler") == "HeunDiscreteScheduler"
    assert "scheduler" not in capsys.readouterr().err
    file.write_text(json.dumps(reference))
    older = GroundedDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert not np.array_equal(draw(older.engine).images, expected)
    assert (
        f"names no scheduler, as older ones do: pictures are drawn with the model's own, "
        f"{came_with}" in capsys.readouterr().err
    )
    for scheduler in ("EDMEulerScheduler", 7, ["DDIMScheduler"]):
        file.write_text(json.dumps(reference | {"scheduler": scheduler}))
        with pytest.raises(ValueError, match=r"pipeline\.json: scheduler: expected one of"):
            GroundedDiffusionPipeline.from_pretrained(tmp_path / "saved")
