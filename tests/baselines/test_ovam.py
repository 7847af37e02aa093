"""OVAM's maps against DAAM and a loop by hand; optimised queries on the micro checkpoint."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from ml.baselines.ovam import (
    attribution_maps,
    attribution_recorder,
    query_maps,
    query_recorder,
)
from ml.baselines.ovam_query import optimise_query, start_query
from ml.detectors import load_detector
from ml.diffusion.encoding import encode_prompts
from ml.diffusion.loading import load_pipeline
from ml.diffusion.sampling import sample
from ml.metrics.iou import binary_iou
from ml.pipeline.workspace import Workspace
from ml.settings.profile import ROOT, load_params
from ml.studies import queries
from ml.studies import query_maps as query_maps_module
from ml.studies.study_run import open_run
from ml.words.phrases import query_text
from tests.builders.tiny import WIDTH, tiny_pipeline

TWO = "a photograph of a dog and a dining table"
ONE = "a photograph of a bus"
CALL = {"steps": 3, "guidance_scale": 4.0}


@pytest.fixture(scope="module")
def pipe():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def micro():
    """The committed model, whose attention means something."""
    diffusion = load_params("paper-quick").diffusion
    return load_pipeline(Workspace(ROOT, "micro").located(diffusion))


def mask_of(side: int = 64) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    mask[10:30, 20:50] = True
    return mask


# --- attribution prompts


def test_the_prompt_itself_as_attribution_text_gives_daam(pipe):
    prompts, words = [TWO, ONE], [["dining table", "dog"], ["bus"]]
    daam = sample(pipe, prompts, [3, 4], words=words, **CALL).daam
    texts = [[TWO, TWO], [ONE]]
    own = attribution_maps(pipe, prompts, [3, 4], words, texts, padding=True, **CALL)
    other = attribution_maps(pipe, prompts, [3, 4], words, padding=True, **CALL)
    assert [m.shape for m in own] == [(2, 16, 16), (1, 16, 16)]
    # But for the undershoot of bicubic enlarging, which DAAM clamps a head, a layer and a token.
    for got, expected in zip(own, daam, strict=True):
        torch.testing.assert_close(got, expected, atol=0.06, rtol=0.0)
        assert np.corrcoef(got.flatten(), expected.flatten())[0, 1] > 0.999
    assert (other[0] - own[0]).abs().max() > 0.1  # another text is another map
    torch.testing.assert_close(other[1], own[1], atol=1e-5, rtol=1e-5)  # ONE is the default text


def test_a_word_that_is_not_in_the_prompt_has_the_map_of_its_own_text(pipe):
    """By hand: the attention of every layer and step, from the keys of "a photograph of a cat"."""
    key_text = encode_prompts(pipe, ["a photograph of a cat"]).hidden[0, :7]  # start .. end
    heats = {8: torch.zeros(8, 8), 16: torch.zeros(16, 16)}

    def look(module, args, kwargs):
        q, k = module.to_q(args[0][2]), module.to_k(key_text)  # row 2: of the conditional half
        size, side = q.shape[1] // module.heads, math.isqrt(len(q))
        for head in range(module.heads):
            part = slice(head * size, (head + 1) * size)
            shares = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), dim=1)
            heats[side] += shares[:, 5].reshape(side, side) / module.heads

    handles = [
        module.register_forward_pre_hook(look, with_kwargs=True)
        for name, module in pipe.unet.named_modules()
        if name.endswith("attn2") and not name.startswith("mid_block")
    ]
    found, none = attribution_maps(pipe, [ONE, TWO], [4, 5], [["cat"], []], **CALL)
    for handle in handles:
        handle.remove()
    coarse = functional.interpolate(heats[8][None, None], (16, 16), mode="bicubic")
    expected = heats[16] + coarse[0, 0].clamp(min=0)
    torch.testing.assert_close(found[0], expected, atol=1e-3, rtol=1e-3)
    assert none.shape == (0, 16, 16)


def test_recorders_leave_pictures_and_daam_as_they_are(pipe):
    words = [["dog"], ["bus"]]
    plain = sample(pipe, [TWO, ONE], [3, 4], words=words, **CALL)
    recorders = [
        attribution_recorder(pipe, [["cat", "dog"], []]),
        query_recorder(pipe, [[start_query(pipe, "dog")], []]),
    ]
    looked = sample(pipe, [TWO, ONE], [3, 4], words=words, recorders=recorders, **CALL)
    assert plain.images.std() > 10
    np.testing.assert_array_equal(looked.images, plain.images)
    assert torch.equal(looked.latents, plain.latents)
    assert all(map(torch.equal, looked.daam, plain.daam))
    assert recorders[0].maps().shape == (2, 2, 16, 16)
    assert not recorders[0].maps()[1].any()  # a picture without words has no map


def test_attribution_texts():
    assert query_text("aeroplane") == "a photograph of an aeroplane"


@pytest.mark.parametrize(
    ("words", "texts", "said"),
    [
        ([["dog"]], [[TWO, ONE]], "one attribution text a word"),
        ([[]], None, "at least one word"),
        ([["dog"]], [[ONE]], "'dog' is not in the prompt"),
        ([["dog"], ["dog"]], None, "2 for 1 prompts"),
    ],
)
def test_wrong_attribution_texts_are_refused(pipe, words, texts, said):
    with pytest.raises(ValueError, match=said):
        attribution_maps(pipe, [TWO], [1], words, texts, **CALL)


# --- optimised queries


def test_a_querys_map_is_the_mean_share_against_its_background(pipe):
    """Two equal embeddings share equally, at every layer, head and step."""
    half = torch.ones(2, WIDTH)
    (found,) = query_maps(pipe, [ONE], [4], [[half, start_query(pipe, "bus")]], **CALL)
    inner = found[0, 2:-2, 2:-2]  # bicubic at the border is clamped nowhere here
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5))
    assert found.min() >= 0 and found.max() <= 1
    swapped = query_maps(pipe, [ONE], [4], [[start_query(pipe, "bus").flip(0)]], **CALL)[0]
    torch.testing.assert_close(found[1:] + swapped, torch.ones(1, 16, 16), atol=1e-3, rtol=0)


def test_optimisation_fits_the_map_to_the_object_of_its_picture(micro):
    """One class of the committed model, the oracle's mask: a lower loss and a better mask."""
    call, prompt = {"steps": 8, "guidance_scale": 4.0}, "a photograph of a car"
    true = _detected(micro, prompt, 5, "car", call)
    found = optimise_query(micro, prompt, 5, true, "car", iterations=30, learning_rate=0.05, **call)
    start = start_query(micro, "car")
    assert found.shape == start.shape and found.dtype == torch.float32 and not found.requires_grad
    (maps,) = query_maps(micro, [prompt], [5], [[start, found]], **call)
    enlarged = functional.interpolate(maps[None], true.shape, mode="bilinear")[0]
    before, after = (
        functional.binary_cross_entropy(own, torch.from_numpy(true).float()).item()
        for own in enlarged
    )
    assert after < 0.7 * before
    before, after = (binary_iou(own.numpy() > 0.5, true) for own in enlarged)
    assert after > before


def _detected(pipe, prompt, seed, name, call) -> np.ndarray:
    made = sample(pipe, [prompt], [seed], **call)
    own = load_params("paper-quick").detector
    detector = load_detector(
        own.backend,
        Workspace(ROOT, "micro").model(own.model),
        weights=own.weights,
        revision=own.revision,
        score_threshold=own.score_threshold,
        device="cpu",
    )
    return detector.detect(list(made.images), [name])[0].merged(name)[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mask": mask_of(32)}, r"\(64, 64\)"),
        ({"mask": mask_of().astype(float)}, "float64"),
        ({"mask": np.zeros((64, 64), bool)}, "neither empty nor full"),
        ({"iterations": 0}, "at least 1 iteration"),
        ({"learning_rate": 0.0}, "learning rate above 0"),
    ],
)
def test_wrong_labels_and_settings_are_refused(pipe, changes, said):
    asked = {"mask": mask_of(), "word": "bus"} | CALL | changes
    with pytest.raises(ValueError, match=said):
        optimise_query(pipe, ONE, 1, **asked)


@pytest.mark.parametrize("wrong", [[[]], [[torch.zeros(3, WIDTH)]], [[torch.zeros(2, 5)]]])
def test_wrong_queries_are_refused(pipe, wrong):
    with pytest.raises(ValueError, match=rf"\(2, {WIDTH}\)"):
        query_maps(pipe, [ONE], [1], wrong, **CALL)


# --- the study's rows


def test_rows_need_maps(tmp_path, monkeypatch):
    run = open_run("quick", tmp_path)
    monkeypatch.setattr(queries, "labelled_pictures", lambda run: {})
    monkeypatch.setattr(query_maps_module, "training_pictures", lambda run: [])
    monkeypatch.setattr(query_maps_module, "judged_pictures", lambda run: [])
    monkeypatch.setattr(type(run), "_model", "none", raising=False)
    with pytest.raises(ValueError, match=r"ml\.studies\.queries\.make"):
        queries.rows(run, "voc-1")
