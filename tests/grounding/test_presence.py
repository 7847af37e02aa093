"""The presence score against hand-computed gains, and `ground` with a threshold on it."""

import numpy as np
import pytest
import torch

from ml.compute.batching import Batches
from ml.diffusion.backbones.noising import signal_shares
from ml.diffusion.backbones.unet import arguments
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.evidence import prediction_errors
from ml.diffusion.latents import add_noise, encode_images
from ml.diffusion.loading import read_pipeline
from ml.drawn_world.world import draw_scene, scene_seed
from ml.grounding.presence import MIN_PRESENCE, compete, gains, presence
from ml.grounding.prompting import Asked, compose_prompt, keep_words
from ml.settings.profile import ROOT
from tests.builders.grounded import make_engine
from tests.builders.tiny import tiny_pipeline

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)


@pytest.mark.parametrize("kind", ["v_prediction", "epsilon", "sample"])
def test_errors_are_those_of_v(kind):
    pipe = tiny_pipeline(kind)
    clean = encode_images(pipe, IMAGES[:1])
    found = prediction_errors(pipe, clean, [["a dog", ""]], [200, 600], [5], 2)[0]
    noisy, share = add_noise(pipe, clean, 600, [5]), float(signal_shares(pipe.scheduler)[600])
    with torch.no_grad():
        (said,) = pipe.unet(
            noisy, 600, return_dict=False, **arguments(encode_prompts(pipe, ["a dog"]))
        )
    noise = (noisy - share**0.5 * clean) / (1 - share) ** 0.5
    v = {
        "v_prediction": lambda: said,  # whatever is told, x0 and the noise follow from x_t
        "epsilon": lambda: (
            share**0.5 * said
            - (1 - share) ** 0.5 * (noisy - (1 - share) ** 0.5 * said) / share**0.5
        ),
        "sample": lambda: (
            share**0.5 * (noisy - share**0.5 * said) / (1 - share) ** 0.5
            - (1 - share) ** 0.5 * said
        ),
    }[kind]()
    true = share**0.5 * noise - (1 - share) ** 0.5 * clean
    assert found.shape == (2, 2, 16, 16)
    assert torch.allclose(found[0, 1], (v - true).square().sum(1)[0], rtol=1e-3, atol=1e-4)


def test_lead_over_rivals_and_over_nothing():
    maps = np.zeros((3, 9, 9), np.float32)
    maps[0, :, :] = 2.0  # everywhere, but less than the second where that is
    maps[1, :, :] = np.where(np.arange(9) < 3, 5.0, -1.0)
    maps[2] = -4.0  # makes it worse
    scores = compete(maps)
    # Columns after smoothing over 3: word 1 is 2/3 of 5 at the edge (zeros outside count), 5, 3,
    # 1, then -1; rows 0 and 8 weigh 2/3. Word 0: 2 inside, 4/3 at the edge columns.
    one = np.array([10 / 3, 5, 3, 1, -1, -1, -1, -1, -2 / 3])
    zero = np.array([4 / 3, 2, 2, 2, 2, 2, 2, 2, 4 / 3])
    rows = (7 + 2 * 2 / 3) / 9
    expected = [
        np.maximum(zero - np.maximum(one, 0), 0).mean() * rows,
        np.maximum(one - zero, 0).mean() * rows,
        0.0,
    ]
    assert scores.dtype == np.float32
    assert np.allclose(scores, expected, rtol=1e-5)


def test_a_picture_and_a_gain_stand_alone():
    pipe = tiny_pipeline()
    words = [["dog", "cat"], ["bus"], ["horse", "sheep", "car"]]
    together = gains(pipe, IMAGES, words, batches=Batches(2))
    assert [m.shape for m in together] == [(2, 16, 16), (1, 16, 16), (3, 16, 16)]
    alone = gains(pipe, IMAGES[2:], [["sheep"]])
    assert np.allclose(together[2][1], alone[0][0], atol=1e-4)
    again = presence(pipe, IMAGES, words, batches=Batches(2))
    assert all(np.array_equal(compete(m), s) for m, s in zip(together, again, strict=True))
    other = presence(pipe, IMAGES, words, seed=1)
    assert not np.allclose(other[2], again[2])
    with pytest.raises(ValueError, match="2 lists for 3"):
        presence(pipe, IMAGES, words[:2])


def test_the_trained_model_knows_what_is_there():
    pipe = read_pipeline(ROOT / "data/foundation/micro/diffusion", None, torch.float32)
    shown = [["car"], ["horse", "bottle"], ["aeroplane"], ["chair", "bus"]]
    scenes = [draw_scene(scene_seed("test", 700 + i), classes=own) for i, own in enumerate(shown)]
    asked = ["car", "horse", "bottle", "aeroplane", "chair", "bus"]
    scores = presence(pipe, np.stack([s.image for s in scenes]), [asked] * len(scenes))
    there = np.array([[word in own for word in asked] for own in shown])
    scores = np.stack(scores)
    pairs = scores[there][:, None] - scores[~there][None]
    assert (pairs > 0).mean() > 0.95
    assert ((scores >= MIN_PRESENCE) == there).mean() > 0.85


def test_ground_leaves_absent_words_empty(monkeypatch):
    grounded = make_engine()
    words = [["dog", "cat", "bus"], ["horse"], ["car", "sheep"]]
    scores = [
        np.array([0.5, 0.1, 0.7], np.float32),
        np.array([0.2], np.float32),
        np.array([0.4, 0.4], np.float32),
    ]
    monkeypatch.setattr("ml.grounding.engine.presence", lambda *args, **kwargs: scores)
    found = grounded.ground(IMAGES, words, min_presence=0.4)
    kept = grounded.ground(IMAGES[[0, 2]], [["dog", "bus"], ["car", "sheep"]])
    assert kept.presence is None and found.presence is scores
    assert [m.shape for m in found.masks] == [(3, 64, 64), (1, 64, 64), (2, 64, 64)]
    assert not found.masks[0][1].any() and not found.probabilities[0][1].any()
    assert not found.masks[1].any() and not found.probabilities[1].any()
    for own, other in (
        (found.probabilities[0][[0, 2]], kept.probabilities[0]),
        (found.probabilities[2], kept.probabilities[1]),
    ):
        assert own.dtype == np.float32 and np.allclose(own, other, atol=1e-4)


def test_ground_when_nothing_is_there(monkeypatch):
    grounded = make_engine()
    found = grounded.ground(IMAGES[:1], [["dog", "cat"]], min_presence=1e9)
    assert found.images.shape == (1, 64, 64, 3) and found.presence[0].shape == (2,)
    assert found.masks[0].shape == (2, 64, 64) and not found.masks[0].any()
    monkeypatch.setattr("ml.grounding.engine.presence", lambda *args, **kwargs: 1 / 0)
    assert grounded.ground(IMAGES[:1], [["dog", "cat"]]).presence is None  # no pass is spent


def test_prompts_of_the_words_that_are_kept():
    words, phrases = ["dog", "cat", "bus"], ["a dog", "a cat", "a bus"]
    kept = np.array([True, False, True])
    assert keep_words(Asked(compose_prompt(words), words, phrases), kept, True) == (
        "a photograph of a dog and a bus",
        ["dog", "bus"],
        ["a dog", "a bus"],
    )
    said = keep_words(Asked("a dog and a cat near a bus", words, phrases), kept, False)
    assert said.prompt == "a dog near a bus"
    twice = Asked("a cat, a dog and a bus near the cat", words, phrases)
    assert keep_words(twice, kept, False).prompt == "a dog and a bus"
